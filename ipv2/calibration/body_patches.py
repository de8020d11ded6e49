"""Finds all patches of the body in the images of an aligned pair.

The difference of the images holds no anatomy, so patches need not be flat: lungs, bone
and edges count too. Pixels that the scanner clipped hold no noise and are left out.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ipv2.calibration.flat_patches import SIZE, FlatPatches
from ipv2.kernels import projection, smoothing

# Neighbours overlap by half, which with the taper uses every pixel about equally.
_STRIDE = 16
# Outside air is -1000 HU, the emptiest lung -950.
_BODY_HU = -970.0
_SMOOTHING = 2.0
# Least share of a patch in the body, and largest share at the end of the range.
_LEAST_BODY, _MOST_CLIPPED = 0.5, 0.001


class Limits(NamedTuple):
    """The smallest values of an image pair, at which scanners clip, HU."""

    low: float
    normal: float


def body_patches(
    low: Float[np.ndarray, "h w"], normal: Float[np.ndarray, "h w"], limits: Limits
) -> FlatPatches:
    """Returns the patches of one slice in the body, half a patch apart.

    Args:
      low: HU of the low-dose image.
      normal: HU of the normal-dose image; `pixels` are of it.
      limits: the smallest value of all slices of each image.
    """
    smooth = smoothing.gaussian(jnp.asarray(normal, jnp.float32)[None], _SMOOTHING)
    body = np.asarray(smooth)[0] > _BODY_HU
    clipped = (low <= limits.low) | (normal <= limits.normal)
    usable = (_share(body) >= _LEAST_BODY) & (_share(clipped) <= _MOST_CLIPPED)
    h, w = normal.shape
    if h == w:
        usable &= _share(projection.inscribed_circle((h, w))) == 1
    start = np.argwhere(usable) * _STRIDE
    pixels = [normal[r : r + SIZE, c : c + SIZE] for r, c in start]
    return FlatPatches(
        np.asarray(pixels, np.float32).reshape(-1, SIZE, SIZE),
        np.zeros(len(start), int),
        start + SIZE // 2,
    )


def _share(mask: np.ndarray) -> np.ndarray:
    """Returns the share of set pixels in each patch of a grid."""
    windows = np.lib.stride_tricks.sliding_window_view(mask, (SIZE, SIZE))
    return windows[::_STRIDE, ::_STRIDE].mean(axis=(-2, -1))
