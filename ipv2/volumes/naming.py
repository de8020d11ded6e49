"""What derived images say of where they come from."""

import re

from ipv2.ct_io import Grid

# The length that DICOM allows for SeriesDescription.
_LONGEST = 64


def derived_series_description(grid: Grid, own: str) -> str:
    """SeriesDescription of a derived image: the input's, and ours in brackets.

    The input's is cut, so that ours always fits.

    Args:
      grid: the input.
      own: what was done, such as 'simulated 2 % dose'.
    """
    added = f" ({own})"
    return _original_description(grid)[: _LONGEST - len(added)] + added


def _original_description(grid: Grid) -> str:
    """SeriesDescription before this software changed it; else the name."""
    return re.sub(r" \((denoised|simulated)\b.*$", "", grid.description) or grid.name
