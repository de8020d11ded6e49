"""Rows of tables: an image's numbers over the slices of a data set."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from common.text_table import format_table

_WIDTH = 120
# (heading, where in an image's numbers, digits)
Column = tuple[str, tuple[str, ...], int]


class Row(NamedTuple):
    """An image's numbers over the slices of a data set: trees of one shape."""

    mean: Mapping[str, Any]
    sd: Mapping[str, Any]
    interval: Mapping[str, Any]
    n: Mapping[str, Any]


Rows = Mapping[str, Row]


def row_of(block: Mapping[str, Any], image: str) -> Row:
    """Returns the row of an image of a block of results."""
    return Row(block[image], *(block[key][image] for key in ("sd", "interval", "n")))


def means_table(
    rows: Rows,
    columns: Sequence[Column],
    title: str,
    last: Sequence[Any] | None = None,
) -> str:
    """Returns a table of means, one row an image.

    Args:
      rows: by the image's name.
      columns: what to show.
      title: above the table.
      last: a row below the others.
    """
    body = [[name, *cells(row.mean, columns)] for name, row in rows.items()]
    return format_table(
        ["image", *(heading for heading, _, _ in columns)],
        [*body, *([last] if last is not None else [])],
        digits=[0, *(digits for _, _, digits in columns)],
        title=wrapped(title),
    )


def cells(numbers: Mapping[str, Any], columns: Sequence[Column]) -> list[Any]:
    """Returns the numbers of columns."""
    return [at(numbers, path) for _, path, _ in columns]


def at(numbers: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Returns the number at a path of keys."""
    found: Any = numbers
    for key in path:
        found = found[key]
    return found


def sample_text(block: Mapping[str, Any]) -> str:
    """Returns how many slices of how many patients were measured, in words."""
    patients = block["n_patients"]
    many = "s" * (patients != 1)
    return f"{block['n_slices']} slices of {patients} patient{many}"


def wrapped(text: str) -> str:
    """Returns a text in lines of at most 120 columns."""
    return textwrap.fill(text, _WIDTH)
