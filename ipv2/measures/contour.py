"""How far the outline of the lungs moved between an image and its truth.

A denoiser trained on misaligned breaths may move anatomy, which PSNR hides. Both images
are smoothed alike (Gaussian, sigma 1.5 pixels, against noise) and cut at -500 HU, half
way between lung and soft tissue. Near the outline of the lungs the area where the two
cuts differ, divided by the outline's length, is the mean distance between the outlines:

    displacement = area(cut(image) xor cut(truth)) / length(outline of cut(truth))

The length is (pi / 4) times the number of neighbouring pixel pairs that the outline
parts (Cauchy and Crofton, averaged over directions). What noise is left moves the cut
too: compare with the value of the input, whose anatomy did not move.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ipv2.kernels.smoothing import gaussian

CUT_HU = -500.0
_SIGMA_PX = 1.5
# Vessels and fissures narrower than twice this, in pixels at 512, are no outline.
_FILL_PX = 6
# How far from the outline a moved one is looked for, in pixels at 512.
_REACH_PX = 10


def contour_displacement_px(
    image: Float[Array, "*b h w"],
    truth: Float[Array, "*b h w"],
    lung: Bool[Array, "*b h w"],
) -> Float[Array, "*b"]:
    """Mean distance in pixels between the lungs' outlines in image and truth.

    Args:
      image: HU.
      truth: HU, aligned with what the image should be.
      lung: roughly where the truth has lung tissue; vessels may be missing in it.

    Returns:
      Float32, 0 for equal images; NaN where the truth has no outline.
    """
    scale = min(image.shape[-2:]) / 512
    fill, reach = (max(1, round(px * scale)) for px in (_FILL_PX, _REACH_PX))
    filled = _erode(_dilate(lung, fill), fill)
    band = _dilate(filled, reach) & ~_erode(filled, reach)
    cut, expected = (gaussian(one, _SIGMA_PX) < CUT_HU for one in (image, truth))
    area = jnp.sum((cut != expected) & band, axis=(-2, -1), dtype=jnp.float32)
    crossings = [
        jnp.sum(_parted(expected, axis) & _first(band, axis), axis=(-2, -1))
        for axis in (-2, -1)
    ]
    length = (np.pi / 4) * (crossings[0] + crossings[1])
    return jnp.where(length > 0, area / jnp.maximum(length, 1), jnp.nan)


def _parted(mask: Array, axis: int) -> Array:
    """Whether a pixel and the next one along an axis differ."""
    size = mask.shape[axis]
    return _first(mask, axis) != lax.slice_in_dim(mask, 1, size, axis=axis)


def _first(mask: Array, axis: int) -> Array:
    return lax.slice_in_dim(mask, 0, mask.shape[axis] - 1, axis=axis)


def _dilate(mask: Array, radius: int) -> Array:
    """Set within a square of side 2 * radius + 1; False outside the image."""
    for axis in (mask.ndim - 2, mask.ndim - 1):
        window = [1] * mask.ndim
        window[axis] = 2 * radius + 1
        mask = lax.reduce_window(
            mask, False, lax.bitwise_or, tuple(window), (1,) * mask.ndim, "SAME"
        )
    return mask


def _erode(mask: Array, radius: int) -> Array:
    return ~_dilate(~mask, radius)
