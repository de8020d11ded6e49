"""Writes `report.html`: a run on one page that needs no other file and no network.

The page carries its style (`page.css`), its scripts (`page.js`, `slice_viewer.js`) and
its images. The policy in its head forbids the browser to load anything else.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from absl import logging

from common.files import write_atomically
from common.report.parts import (
    Part,
    Picture,
    Plot,
    Report,
    Section,
    Table,
    Text,
    Viewer,
)
from common.report.table_html import Glossary, table_html
from common.report.viewer_html import (
    PackedViewer,
    leave_out,
    packed_viewer,
    viewer_html,
)

LARGEST = 15_000_000
"""Bytes of a page. Slices that do not fit are left out, the last ones first."""

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def write_page(path: Path, report: Report, *, largest: int = LARGEST) -> None:
    """Writes a report as one HTML file; the same report gives the same bytes.

    If the file would become too large, the last slices of its viewers are left out. The
    page and the log say which.

    Args:
      path: of the page.
      report: what the page shows. Texts are plain: HTML in them shows as it is written.
      largest: bytes that the page may have.

    Raises:
      ValueError: A column names a measure that the glossary lacks, a plot is not one
        SVG element, or a slice is not as `ViewedSlice` says.
    """
    sections = [_packed(section) for section in report.sections]
    viewers = [
        part
        for _, parts in sections
        for part in parts
        if isinstance(part, PackedViewer)
    ]
    page = _document(report, sections)
    while (excess := len(page.encode()) - largest) > 0:
        if not any(viewer.slices for viewer in viewers):
            logging.warning(
                "%s is %.1f MB too large without slices", path, excess / 1e6
            )
            break
        leave_out(viewers, excess)
        page = _document(report, sections)
    for viewer in viewers:
        if viewer.left_out:
            logging.warning(
                "%s would have more than %.1f MB; left out of %r: %s",
                *(path, largest / 1e6, viewer.title, ", ".join(viewer.left_out)),
            )
    write_atomically(path, page)


_Packed = tuple[str, list[Part | PackedViewer]]
"""A section's title and its parts, with the viewers packed."""


def _packed(section: Section) -> _Packed:
    return section.title, [
        packed_viewer(part) if isinstance(part, Viewer) else part
        for part in section.parts
    ]


def _document(report: Report, sections: Sequence[_Packed]) -> str:
    glossary = Glossary(report.glossary)
    title = escape(report.title)
    main = "".join(
        _section(f"section-{number}", heading, parts, glossary)
        for number, (heading, parts) in enumerate(sections, start=1)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{_own_file('page.css')}</style>\n</head>\n<body>\n"
        f"{_first_screen(report, title, glossary)}"
        f"{_navigation([heading for heading, _ in sections])}"
        f"<main>\n{main}{_explained(report, glossary)}</main>\n"
        f"<script>\n{_own_file('page.js')}</script>\n"
        f"<script>\n{_own_file('slice_viewer.js')}</script>\n</body>\n</html>\n"
    )


def _own_file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _first_screen(report: Report, title: str, glossary: Glossary) -> str:
    warnings = "".join(f"<li>{escape(text)}</li>" for text in report.warnings)
    if warnings:
        warnings = f'<ul class="warnings" aria-label="Warnings">{warnings}</ul>\n'
    return (
        f'<header>\n<h1>{title}</h1>\n<p class="verdict">{escape(report.verdict)}</p>\n'
        f"{warnings}{_facts(report.facts)}"
        f"{table_html(report.headline, glossary, heading='h2')}</header>\n"
    )


def _facts(facts: Mapping[str, str]) -> str:
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n"
        for name, value in facts.items()
    )
    return f'<dl class="facts">\n{pairs}</dl>\n' if pairs else ""


def _navigation(headings: Sequence[str]) -> str:
    links = "".join(
        f'<li><a href="#section-{number}">{escape(heading)}</a></li>'
        for number, heading in enumerate(headings, start=1)
    )
    return (
        f'<nav aria-label="Sections"><ul>{links}<li><a href="#glossary">Glossary</a>'
        '</li></ul><button type="button" class="theme">Dark</button></nav>\n'
    )


def _section(
    anchor: str,
    heading: str,
    parts: Sequence[Part | PackedViewer],
    glossary: Glossary,
) -> str:
    shown = "".join(_part(part, glossary) for part in parts)
    return f'<section id="{anchor}">\n<h2>{escape(heading)}</h2>\n{shown}</section>\n'


def _part(part: Part | PackedViewer, glossary: Glossary) -> str:
    match part:
        case Table():
            return table_html(part, glossary)
        case Plot():
            return _figure("plot", part.title, _svg(part), part.note)
        case Picture():
            data = base64.b64encode(part.png).decode("ascii")
            image = (
                f'<img alt="{escape(part.title)}" src="data:image/png;base64,{data}">'
            )
            return _figure("picture", part.title, image, part.note)
        case PackedViewer():
            return viewer_html(part)
        case Text():
            return (
                f"<details><summary>{escape(part.title)}</summary>"
                f'<pre tabindex="0">\n{escape(part.text)}</pre></details>\n'
            )
    raise TypeError(f"no part of a report: {part!r}")


def _figure(kind: str, title: str, drawing: str, note: str) -> str:
    below = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return (
        f'<figure class="{kind}">\n<figcaption><h3>{escape(title)}</h3></figcaption>\n'
        f'<div class="scroll">{drawing}</div>\n{below}</figure>\n'
    )


def _svg(plot: Plot) -> str:
    """Returns the element of an SVG file, without what comes before it."""
    start, end = plot.svg.find("<svg"), plot.svg.rfind("</svg>")
    if start < 0 or end < start or "<script" in plot.svg:
        raise ValueError(
            f"plot {plot.title!r}: got {plot.svg[:40]!r}..., "
            "accepted: the text of an SVG file without scripts"
        )
    return plot.svg[start : end + len("</svg>")]


def _explained(report: Report, glossary: Glossary) -> str:
    measures = "".join(
        f'<div id="{glossary.anchors[measure.name]}"><dt>{escape(measure.name)}</dt>'
        f"<dd>{escape(measure.meaning)}</dd><dd>{escape(measure.good)}</dd></div>\n"
        for measure in report.glossary
    )
    return (
        '<section id="glossary">\n<h2>Glossary</h2>\n'
        f'<dl class="glossary">\n{measures}</dl>\n</section>\n'
    )
