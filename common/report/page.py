"""Writes a report as a page; a stand-in until the page itself is merged."""

from pathlib import Path

from common.files import write_atomically
from common.report.parts import Report


def write_page(path: Path, report: Report) -> None:
    """Writes title and verdict."""
    write_atomically(path, f"<!doctype html><h1>{report.title}</h1>{report.verdict}\n")
