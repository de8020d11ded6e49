"""Checks whether values look like HU; every task reads volumes through this check.

The check reads evenly spread slices of a volume. In HU, air is near -1000, soft tissue
is near 0, and only metal is above 3000. The check refuses values that cannot be HU; it
does not prove that all others are.
"""

import numpy as np

from common.errors import UserError
from ipv2.ct_io.volume import PADDING_HU, Slice, SliceSource

_SLICES = 5
# Fewer pixels are too few to judge.
_LEAST_PIXELS = 256
# Above the 16 bits of a scanner, and above metal in an extended HU scale.
_HIGHEST_HU = 32767.0
_METAL_HU = 4000.0
_NO_AIR_HU = -200.0
# Noise alone spans more, except in air, which a scanner may clip.
_LEAST_SPAN_HU, _NEAR_AIR_HU = 100.0, -900.0
# The range of fat and soft tissue in HU + 1024, and a range of the same width below it.
# Bone in HU puts more pixels into the lower range than into the upper one.
_RAISED = (874.0, 1174.0)
_BETWEEN = (350.0, 650.0)


def check_hu(source: SliceSource) -> None:
    """Raises UserError if a volume in HU holds values that cannot be HU.

    Args:
      source: the opened volume; some of its slices are read.
    """
    count = source.shape[0]
    places = np.unique(np.linspace(0, count - 1, min(_SLICES, count)).round())
    values = np.concatenate([_measured(source.read(int(i))) for i in places])
    if values.size < _LEAST_PIXELS:
        return
    if problem := problem_of(values):
        raise UserError(
            f"{source.paths[0] if len(source.paths) == 1 else source.name}: {problem} "
            "If they are HU nevertheless: --config.data.trust_hu=True"
        )


def _measured(found: Slice) -> np.ndarray:
    """Returns the pixels that cannot be padding, which would look like air."""
    return found.hu[(found.hu == found.stored) & (found.hu != PADDING_HU)]


def problem_of(values: np.ndarray) -> str:
    """Returns why values of a CT image are not HU, '' if they may be.

    Args:
      values: values of whole slices, any shape.
    """
    low, high = float(values.min()), float(values.max())
    span = f"values from {low:g} to {high:g}"
    if low >= -1.5 and high <= 1.5:
        return (
            f"{span} are not HU (air is -1000, water 0) but an image scaled to about 0 "
            "... 1. Give the HU, or scale the image back."
        )
    if low >= 0 and high <= 255:
        return (
            f"{span} are grey levels, not HU (air is -1000, water 0). Give the HU, or "
            "for PNG the window, such as --config.data.window='(-600.0, 1500.0)'."
        )
    if high - low < _LEAST_SPAN_HU and low > _NEAR_AIR_HU:
        return (
            f"{span} span less than {_LEAST_SPAN_HU:g}, which no CT image in HU does. "
            "Give the HU, or scale the values back."
        )
    if high > _HIGHEST_HU or np.mean(values > _METAL_HU) > 0.05:
        return (
            f"{span} are beyond what HU reach ({_HIGHEST_HU:g}; above {_METAL_HU:g} "
            "there is only metal). Check the rescale slope and intercept."
        )
    raised, between = (_share(values, *edges) for edges in (_RAISED, _BETWEEN))
    if (
        np.quantile(values, 0.001) > _NO_AIR_HU
        and raised > 0.05
        and raised > 2 * between
    ):
        return (
            f"{span}: no air near -1000, and {100 * raised:.0f} % of the pixels near "
            "1024, where tissue lies in HU + 1024. Subtract 1024, or repair the "
            "rescale intercept (0028,1052)."
        )
    return ""


def _share(values: np.ndarray, low: float, high: float) -> float:
    return float(np.mean((values >= low) & (values <= high)))
