"""Plain-text tables for the console and for logs."""

from collections.abc import Sequence


def format_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str | float | int | None]],
    *,
    digits: int | Sequence[int] = 2,
    title: str | None = None,
) -> str:
    """Returns a table with aligned columns, as one string without a final newline.

    Text is aligned left, numbers right with a fixed number of digits; None is '-'.

    Args:
      header: One title per column. It may have several lines.
      rows: One cell per column: text, number or None.
      digits: Digits after the point of floats, for all columns or one per column.
      title: A line above the table.

    Raises:
      ValueError: A row, or `digits`, is not as long as the header.
    """
    columns = len(header)
    digits = [digits] * columns if isinstance(digits, int) else list(digits)
    if len(digits) != columns:
        raise ValueError(f"{columns} columns but {len(digits)} numbers of digits")
    for index, row in enumerate(rows):
        if len(row) != columns:
            raise ValueError(f"row {index} has {len(row)} cells, the header {columns}")
    cells = [[_cell(v, d) for v, d in zip(row, digits, strict=True)] for row in rows]
    heads = [title.split("\n") for title in header]
    height = max((len(head) for head in heads), default=0)
    heads = [[""] * (height - len(head)) + head for head in heads]
    widths = [
        max(len(text) for text in (*heads[c], *(row[c] for row in cells)))
        for c in range(columns)
    ]
    is_text = [all(isinstance(row[c], str) for row in rows) for c in range(columns)]

    def join(texts: Sequence[str]) -> str:
        aligned = (
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(texts, widths, is_text, strict=True)
        )
        return "  ".join(aligned).rstrip()

    lines = [title] if title else []
    lines += [join([head[line] for head in heads]) for line in range(height)]
    lines.append("  ".join("-" * width for width in widths))
    lines += [join(row) for row in cells]
    return "\n".join(lines)


def _cell(value: str | float | int | None, digits: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    return f"{value:.{digits}f}"
