"""Writes `report.html`: a run on one page that needs no other files."""

import base64
import html
import io
import json
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from common.files import write_atomically

_STYLE = (
    "body{font-family:sans-serif;max-width:75em;margin:2em auto;padding:0 1em}"
    "pre{overflow-x:auto;background:#f4f4f4;padding:1em}img{max-width:100%}"
)


def write_report(
    path: Path,
    *,
    title: str,
    texts: Mapping[str, str],
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a page with a heading over every picture and every text.

    Args:
      path: of the page.
      title: of the page.
      texts: plain texts, such as tables, by heading.
      pictures: bytes of PNG files by heading; they come before the texts.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for heading, png in (pictures or {}).items():
        data = base64.b64encode(png).decode("ascii")
        parts.append(
            f"<h2>{html.escape(heading)}</h2>"
            f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">'
        )
    for heading, text in texts.items():
        parts.append(f"<h2>{html.escape(heading)}</h2><pre>{html.escape(text)}</pre>")
    body = "\n".join(parts)
    write_atomically(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>\n{body}\n</html>\n",
    )


def curves_png(
    metrics: Path, names: tuple[str, ...], *, linear: tuple[str, ...] = ()
) -> bytes:
    """Returns a PNG with one curve per metric over the steps of `metrics.jsonl`.

    Args:
      metrics: the file.
      names: metrics, one per panel, with a logarithmic axis if all values are above 0.
        The panel of a metric that the file lacks stays empty.
      linear: metrics with a linear axis, such as shares and percentages.
    """
    lines = [json.loads(x) for x in metrics.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(5 * len(names), 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names,
                          strict=True):  # fmt: skip
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True) if points else ([], []))
        positive = bool(points) and all(value > 0 for _, value in points)
        is_log = positive and name not in linear
        axes.set(xlabel="step", title=name, yscale="log" if is_log else "linear")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
