"""Whether values look like HU: one check at the reader's door, for every task.

Evenly spread slices of a volume are looked at. What CT shows in HU: air near -1000,
soft tissue near 0, nothing but metal above 3000. The check refuses what cannot be HU;
it does not prove that the rest is.
"""

import numpy as np

from common.errors import UserError
from ipv2.ct_io.volume import PADDING_HU, Slice, SliceSource

_SLICES = 5
# Fewer pixels are no image to judge.
_LEAST_PIXELS = 256
# Higher than what a scanner's 16 bits hold, and than metal in an extended HU scale.
_HIGHEST_HU = 32767.0
_METAL_HU = 4000.0
_NO_AIR_HU = -200.0
# Noise alone spans more; but for air alone, which a scanner may clip.
_LEAST_SPAN_HU, _NEAR_AIR_HU = 100.0, -900.0
# Where fat and soft tissue lie in HU + 1024, and a range as wide that bone in HU fills
# more: fewer and fewer of its pixels reach higher values.
_RAISED = (874.0, 1174.0)
_BETWEEN = (350.0, 650.0)


def check_hu(source: SliceSource) -> None:
    """Raises UserError if a volume in HU holds values that cannot be HU.

    Args:
      source: what was opened; its slices are read.
    """
    count = source.shape[0]
    places = np.unique(np.linspace(0, count - 1, min(_SLICES, count)).round())
    values = np.concatenate([_measured(source.read(int(i))) for i in places])
    if values.size < _LEAST_PIXELS:
        return
    if problem := problem_of(values):
        raise UserError(
            f"{source.paths[0] if len(source.paths) == 1 else source.name}: {problem} "
            "If they are HU all the same: --config.data.trust_hu=True"
        )


def _measured(found: Slice) -> np.ndarray:
    """The pixels that are not padding, nor may be: it would pass for air."""
    return found.hu[(found.hu == found.stored) & (found.hu != PADDING_HU)]


def problem_of(values: np.ndarray) -> str:
    """Why values of a CT image are not HU, '' if they may be.

    Args:
      values: of whole slices, any shape.
    """
    low, high = float(values.min()), float(values.max())
    span = f"values from {low:g} to {high:g}"
    if low >= -1.5 and high <= 1.5:
        return (
            f"{span} are no HU (air is -1000, water 0) but an image scaled to about 0 "
            "... 1. Give the HU, or scale it back."
        )
    if low >= 0 and high <= 255:
        return (
            f"{span} are grey levels, not HU (air is -1000, water 0). Give the HU, or "
            "for PNG the window: --config.data.window='(-600.0, 1500.0)', say."
        )
    if high - low < _LEAST_SPAN_HU and low > _NEAR_AIR_HU:
        return (
            f"{span} span less than {_LEAST_SPAN_HU:g}, which no CT image in HU does. "
            "Give the HU, or scale the values back."
        )
    if high > _HIGHEST_HU or np.mean(values > _METAL_HU) > 0.05:
        return (
            f"{span} are beyond what HU reach ({_HIGHEST_HU:g}; above {_METAL_HU:g} "
            "there is nothing but metal). Check the rescale."
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
