"""Reads how the tube current changes along a DICOM series.

A scanner with tube-current modulation gives thick parts of the patient more photons.
The photons of a slice are proportional to its exposure in mAs: tube current times the
time of a rotation, over the pitch where the vendor states effective mAs. Only ratios
between slices are used, so a constant factor of the vendor does not matter.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from pydicom import Dataset

from ipv2.ct_io.dicom_header import number_of

_KEYWORDS = (
    # mAs before mA: it holds the time of a rotation. The digits before whole numbers.
    *("ExposureInmAs", "ExposureInuAs", "Exposure"),
    *("XRayTubeCurrentInmA", "XRayTubeCurrentInuA", "XRayTubeCurrent"),
)

Exposures: TypeAlias = tuple[float, ...]
"""The numbers of the header's exposure attributes; 0 for one that is not stated."""


def exposures_of(header: Dataset) -> Exposures:
    """Returns the exposure attributes of a slice, mAs before mA."""
    return tuple(number_of(header, keyword, 0.0) for keyword in _KEYWORDS)


def relative_current(series: Sequence[Exposures]) -> np.ndarray | None:
    """Returns the exposure of each slice over the series' mean.

    It is read from the first attribute that every slice states and that changes between
    slices: some scanners write the mean of the series as the exposure of every slice,
    and the current of each slice beside it.

    Args:
      series: `exposures_of` each slice.

    Returns:
      (slices,) float64 with mean 1; all 1 if no attribute changes; None if no attribute
      is stated by every slice with a number above 0.
    """
    columns = np.asarray(series, np.float64).T
    stated = [c for c in columns if np.all(np.isfinite(c) & (c > 0))]
    if not stated:
        return None
    for column in stated:
        if column.min() < column.max():
            return column / column.mean()
    return np.ones(len(series))
