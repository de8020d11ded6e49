"""Writes tables of a report as HTML; `page.js` sorts and copies them."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from common.report.parts import Cell, Column, Estimate, Measure, Table

UNDEFINED = "-"


class Glossary:
    """Links names of measures to what explains them.

    Attributes:
      anchors: the id of each measure's place on the page, by its name.
    """

    def __init__(self, measures: Sequence[Measure]) -> None:
        """Takes the measures, in the order of the page.

        Raises:
          ValueError: Two measures have the same name.
        """
        self._measures = {measure.name: measure for measure in measures}
        if len(self._measures) < len(measures):
            names = [measure.name for measure in measures]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"the glossary explains {', '.join(twice)} more than once")
        self.anchors: Mapping[str, str] = {
            measure.name: f"measure-{number}"
            for number, measure in enumerate(measures, start=1)
        }

    def linked(self, text: str, measure: str) -> str:
        """Returns a link with a text to a measure.

        Raises:
          ValueError: The glossary lacks the measure.
        """
        if measure not in self._measures:
            raise ValueError(
                f"the glossary lacks the measure {measure!r}; "
                f"it has {', '.join(self._measures) or 'none'}"
            )
        meaning = escape(self._measures[measure].meaning)
        return (
            f'<a class="measure" href="#{self.anchors[measure]}" title="{meaning}">'
            f"{escape(text)}</a>"
        )

    def linked_if_known(self, text: str) -> str:
        """Returns the text; as a link if it is the name of a measure."""
        return self.linked(text, text) if text in self._measures else escape(text)


def table_html(table: Table, glossary: Glossary, *, heading: str = "h3") -> str:
    """Returns a table with its title, a button that copies it, and its notes.

    Numbers keep all their digits in the attribute `data-value`.

    Args:
      table: with any number of rows.
      glossary: what column titles link to, and text cells that name a measure.
      heading: the element of the title.
    """
    is_text = [
        bool(table.rows) and all(isinstance(row[i], str) for row in table.rows)
        for i in range(len(table.columns))
    ]
    shared_n = _shared_n(table)
    heads = "".join(map(_head, table.columns, is_text, [glossary] * len(is_text)))
    rows = "\n".join(
        "<tr>"
        + "".join(
            _cell(cell, column, glossary, is_text=text, is_first=not i, n=shared_n)
            for i, (cell, column, text) in enumerate(
                zip(row, table.columns, is_text, strict=True)
            )
        )
        + "</tr>"
        for row in table.rows
    )
    if not table.rows:
        rows = f'<tr><td colspan="{len(table.columns)}" class="empty">no rows</td></tr>'
    title = escape(table.title)
    return (
        '<figure class="table">\n'
        f"<figcaption><{heading}>{title}</{heading}>"
        f'<button type="button" class="copy" aria-label="Copy the table: {title}">'
        "Copy</button></figcaption>\n"
        f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">'
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
        f"</div>\n{_notes(table, shared_n)}</figure>\n"
    )


def _head(column: Column, is_text: bool, glossary: Glossary) -> str:
    title = escape(column.title)
    shown = glossary.linked(column.title, column.measure) if column.measure else title
    label = f'<span class="title">{shown}</span>'
    button = (
        f'<button type="button" class="sort" aria-label="Sort by {title}"></button>'
    )
    # The title ends where the numbers end.
    kind, content = (
        ("", label + button) if is_text else (' class="number"', button + label)
    )
    return f'<th scope="col" aria-sort="none"{kind}>{content}</th>'


def _cell(
    cell: Cell,
    column: Column,
    glossary: Glossary,
    *,
    is_text: bool,
    is_first: bool,
    n: int | None,
) -> str:
    kind = "" if is_text else ' class="number"'
    if isinstance(cell, str):
        tag, scope = ("th", ' scope="row"') if is_first else ("td", "")
        return f"<{tag}{scope}{kind}>{glossary.linked_if_known(cell)}</{tag}>"
    value = cell.mean if isinstance(cell, Estimate) else cell
    if value is None or math.isnan(value):
        return f'<td{kind} data-value="" title="not defined">{UNDEFINED}</td>'
    attributes, shown = f' data-value="{_exact(value)}"', _rounded(value, column)
    if isinstance(cell, Estimate):
        attributes += _exact_interval(cell)
        shown = f"<span>{shown}{_interval(cell, column)}</span>"
        if cell.n is not None and n is None:
            shown += f" <small>n {cell.n}</small>"
    return f"<td{kind}{attributes}>{shown}</td>"


def _rounded(value: float, column: Column) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return str(value) if isinstance(value, int) else f"{value:.{column.digits}f}"


def _exact(value: float) -> str:
    """Returns all digits, as JavaScript's `Number` reads them."""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value if isinstance(value, int) else float(value))


def _has_interval(cell: Cell) -> bool:
    return (
        isinstance(cell, Estimate)
        and cell.low is not None
        and cell.high is not None
        and not math.isnan(cell.low)
        and not math.isnan(cell.high)
    )


def _interval(cell: Estimate, column: Column) -> str:
    if cell.low is None or cell.high is None or not _has_interval(cell):
        return ""
    ends = f"({_rounded(cell.low, column)} to {_rounded(cell.high, column)})"
    return f' <span class="interval">{ends}</span>'


def _exact_interval(cell: Estimate) -> str:
    """Returns attributes with what an estimate has beside its mean."""
    texts: list[str] = []
    if cell.low is not None and cell.high is not None and _has_interval(cell):
        texts += [f' data-low="{_exact(cell.low)}" data-high="{_exact(cell.high)}"']
    if cell.n is not None:
        texts += [f' data-n="{cell.n}" title="n = {cell.n}"']
    return "".join(texts)


def _shared_n(table: Table) -> int | None:
    """Returns the number of values of all estimates; None if they differ."""
    estimates = [c for row in table.rows for c in row if isinstance(c, Estimate)]
    counts = {estimate.n for estimate in estimates}
    return counts.pop() if len(counts) == 1 else None


def _notes(table: Table, shared_n: int | None) -> str:
    has_intervals = any(_has_interval(cell) for row in table.rows for cell in row)
    said = ["In brackets: the 95 % interval of the mean"] if has_intervals else []
    if shared_n is not None:
        said.append(f"n = {shared_n}" if said else f"Means of n = {shared_n}")
    notes = [table.note] if table.note else []
    notes += ["; ".join(said) + "."] if said else []
    return f'<p class="note">{" ".join(map(escape, notes))}</p>\n' if notes else ""
