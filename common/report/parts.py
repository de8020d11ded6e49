"""What a report consists of: plain values, which `common/report/page.py` renders.

Whoever composes a report knows what its numbers mean; whoever renders it knows HTML.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int16


@dataclasses.dataclass(frozen=True)
class Measure:
    """Explains a measure in the report's glossary.

    Attributes:
      name: as tables write it.
      meaning: one line: what it measures, in which unit.
      good: one line: which values are good, and what it cannot tell.
    """

    name: str
    meaning: str
    good: str


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
      mean: of the values.
      low: end of the 95 % interval; None if there is none.
      high: end of the 95 % interval; None if there is none.
      n: the values; None if they were not counted.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


Cell = str | int | float | Estimate | None
"""None is a value that is not defined; it shows as '-'."""


@dataclasses.dataclass(frozen=True)
class Column:
    """Describes a column of a table.

    Attributes:
      title: in plain words, with the unit.
      measure: the name of the `Measure` that the title links to; '' for none.
      digits: after the point of numbers.
    """

    title: str
    measure: str = ""
    digits: int = 2


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under titled columns; readers can sort them.

    Attributes:
      title: above the table.
      columns: one for each cell of a row.
      rows: a cell for each column.
      note: below the table: what the reader must know to read it.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __post_init__(self) -> None:
        """Checks that each row has a cell for each column."""
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: row {index} has {len(row)} cells, "
                    f"accepted: {len(self.columns)}"
                )


@dataclasses.dataclass(frozen=True)
class Plot:
    """A drawing of a plotting library.

    Attributes:
      title: above the drawing.
      svg: the text of an SVG file.
      note: below the drawing.
    """

    title: str
    svg: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture in pixels.

    Attributes:
      title: above the picture.
      png: the bytes of a PNG file.
      note: below the picture.
    """

    title: str
    png: bytes
    note: str = ""


@dataclasses.dataclass(frozen=True)
class ViewedSlice:
    """A CT slice with all that was made of it.

    Attributes:
      name: tells which slice it is: data set, patient, number.
      role: why it is shown: `worst`, `median`, `best`.
      images: HU in whole numbers by the image's name, in the order of the panels; all
        of one size.
      reference: the name of the image that differences are taken from; '' for none.
      pixel_mm: the pixels' side; None if it is not known.
      facts: numbers of this slice, under each image, by the image's name.
    """

    name: str
    role: str
    images: Mapping[str, Int16[np.ndarray, "h w"]]
    reference: str = ""
    pixel_mm: float | None = None
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Viewer:
    """Slices to look at in any window.

    Attributes:
      title: above the viewer.
      slices: in the order of the slider; the first shows at first.
      note: below the viewer.
    """

    title: str
    slices: Sequence[ViewedSlice]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
    """Plain text, such as a config; shows folded.

    Attributes:
      title: what opens it.
      text: with its line ends.
    """

    title: str
    text: str


Part = Table | Plot | Picture | Viewer | Text


@dataclasses.dataclass(frozen=True)
class Section:
    """Parts under one heading.

    Attributes:
      title: the heading.
      parts: from top to bottom.
    """

    title: str
    parts: Sequence[Part]


@dataclasses.dataclass(frozen=True)
class Report:
    """A run on one page.

    Attributes:
      title: the run.
      verdict: one sentence, made from the numbers: what came out.
      facts: what was run, in the order to show: data, network, pairs, dose, seed,
        commit, time, machine.
      headline: the numbers that a reader asks for first.
      warnings: what a reader must know before trusting the numbers.
      sections: all else.
      glossary: of every measure that a column names.
    """

    title: str
    verdict: str
    facts: Mapping[str, str]
    headline: Table
    sections: Sequence[Section]
    glossary: Sequence[Measure]
    warnings: Sequence[str] = ()


def to_stored_hu(image: Float[np.ndarray, "h w"]) -> Int16[np.ndarray, "h w"]:
    """Returns HU rounded to whole numbers, within what 16 bits hold.

    Raises:
      ValueError: A value is not finite.
    """
    if not np.isfinite(image).all():
        raise ValueError("an image to view holds NaN or infinity")
    return np.rint(image).clip(-32768, 32767).astype(np.int16)
