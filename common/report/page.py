"""Renders a report as one HTML page that needs no other file."""

import html
from pathlib import Path

from common.files import write_atomically
from common.report.parts import Report


def write_page(path: Path, report: Report) -> None:
    """Writes the page; it appears whole or not at all.

    Args:
      path: of the page.
      report: what it says.
    """
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in report.facts.items()
    )
    write_atomically(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(report.title)}</title>"
        f"<h1>{html.escape(report.title)}</h1><p>{html.escape(report.verdict)}</p>"
        f"<dl>{facts}</dl></html>\n",
    )
