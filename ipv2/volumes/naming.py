"""SeriesDescription of derived images."""

import re

from ipv2.ct_io import Grid

# The length that DICOM allows for SeriesDescription.
_LONGEST = 64


def derived_series_description(grid: Grid, own: str) -> str:
    """Returns the SeriesDescription of a derived image.

    It is the input's with `own` in brackets; the input's is cut so that `own` fits.

    Args:
      grid: the input.
      own: the processing, such as 'simulated 2 % dose'.
    """
    added = f" ({own})"
    return _original_description(grid)[: _LONGEST - len(added)] + added


def _original_description(grid: Grid) -> str:
    """Returns SeriesDescription without this software's addition, or the name."""
    return re.sub(r" \((denoised|simulated)\b.*$", "", grid.description) or grid.name
