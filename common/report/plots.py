"""Makes drawings for a report: SVG, legible on a light and on a dark page, and PNG.

Draw on `matplotlib.figure.Figure`, about `WIDTH` inches wide: on a narrow screen the
drawing shrinks, and its text with it. Use black for what has the colour of the text,
and `COLOURS` for the rest.
"""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator

WIDTH = 5.0
"""Inches of a drawing; its text of 10 points has 10 pixels on a screen of 390."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""By Okabe and Ito: they differ without colour vision. These four have a contrast of 3
with white and with nearly black."""

_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "report",  # the same figure gets the same ids
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_PANEL_HEIGHT = 2.2


def figure_svg(figure: Figure) -> str:
    """Returns a figure as an `<svg>` element; the same figure gives the same text.

    The background is transparent, without frames of legends. Black becomes the colour
    of the page's text. The element shrinks with the page. Two different figures have no
    id in common, so any number can be on one page.

    Args:
      figure: the drawing; frames of its legends are switched off.
    """
    for legend in figure.findobj(Legend):
        legend.set_frame_on(False)
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without the declaration of a file
    text = text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    text = text.replace("xlink:href", "href")
    # The style sheet would apply to the whole page.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"\b(stroke|fill): #000000", r"\1: currentColor", text)
    text = text.replace(
        "<svg ",
        '<svg fill="currentColor" stroke-linejoin="round" stroke-linecap="butt" '
        'style="max-width: 100%; height: auto" ',
        1,
    )
    return _with_own_ids(text)


def figure_png(figure: Figure, dpi: int = 100) -> bytes:
    """Returns a figure as a PNG on white, for what is made of pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def curves(metrics: Path, names: Sequence[str], *, linear: Sequence[str] = ()) -> str:
    """Returns an SVG with one curve per metric over the steps of `metrics.jsonl`.

    Args:
      metrics: the file.
      names: metrics, one per panel, with a logarithmic axis if all values are above 0.
        The panel of a metric that the file lacks says so.
      linear: metrics with a linear axis, such as shares and percentages.
    """
    lines = [json.loads(x) for x in metrics.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(WIDTH, _PANEL_HEIGHT * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            # A single point has no line.
            marker = "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), color=COLOURS[0], marker=marker)
        else:
            axes.text(0.5, 0.5, "no values", ha="center", transform=axes.transAxes)
        positive = bool(points) and all(value > 0 for _, value in points)
        is_log = positive and name not in linear
        axes.set(xlabel="step", title=name, yscale="log" if is_log else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure_svg(figure)


def _with_own_ids(svg: str) -> str:
    """Returns the text with ids that begin with a hash of it."""
    own = "p" + hashlib.sha256(svg.encode()).hexdigest()[:12]
    svg = re.sub(r'\bid="', f'id="{own}-', svg)
    return re.sub(r'(href="|url\()#', rf"\1#{own}-", svg)
