"""The distance by which the lungs' outline moved between an image and its truth.

A denoiser trained on misaligned breaths may move anatomy, and PSNR hides this. Both
images are smoothed by the same Gaussian (sigma 1.5 pixels, against noise) and
thresholded at -500 HU, half-way between lung and soft tissue. The mean distance between
the two outlines is the area near the lungs' outline where the two masks differ, divided
by the outline's length:

    displacement = area(mask(image) xor mask(truth)) / length(outline of mask(truth))

The length is (pi / 4) times the number of neighbouring pixel pairs that the outline
separates (Cauchy and Crofton, averaged over directions). Remaining noise moves the
outline too: compare with the value of the input, whose anatomy did not move.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ipv2.kernels.smoothing import gaussian

CUT_HU = -500.0
_SIGMA_PX = 1.5
# The closing's radius in pixels at 512: vessels and fissures narrower than twice this
# do not count as outline.
_FILL_PX = 6
# Half the width of the band around the outline that is measured, in pixels at 512.
_REACH_PX = 10


def contour_displacement_px(
    image: Float[Array, "*b h w"],
    truth: Float[Array, "*b h w"],
    lung: Bool[Array, "*b h w"],
) -> Float[Array, "*b"]:
    """Returns the mean distance in pixels between the lung outlines of image and truth.

    Args:
      image: HU.
      truth: HU, aligned with the anatomy that the image should show.
      lung: rough mask of the truth's lung tissue; it may omit vessels.

    Returns:
      Float32, 0 for equal images; NaN where the truth has no outline.
    """
    scale = min(image.shape[-2:]) / 512
    fill, reach = (max(1, round(px * scale)) for px in (_FILL_PX, _REACH_PX))
    filled = _erode(_dilate(lung, fill), fill)
    band = _dilate(filled, reach) & ~_erode(filled, reach)
    found, expected = (gaussian(hu, _SIGMA_PX) < CUT_HU for hu in (image, truth))
    area = jnp.sum((found != expected) & band, axis=(-2, -1), dtype=jnp.float32)
    crossings = [
        jnp.sum(_differs(expected, axis) & _all_but_last(band, axis), axis=(-2, -1))
        for axis in (-2, -1)
    ]
    length = (np.pi / 4) * (crossings[0] + crossings[1])
    return jnp.where(length > 0, area / jnp.maximum(length, 1), jnp.nan)


def _differs(mask: Array, axis: int) -> Array:
    """Returns whether a pixel differs from the next one along an axis."""
    size = mask.shape[axis]
    return _all_but_last(mask, axis) != lax.slice_in_dim(mask, 1, size, axis=axis)


def _all_but_last(mask: Array, axis: int) -> Array:
    return lax.slice_in_dim(mask, 0, mask.shape[axis] - 1, axis=axis)


def _dilate(mask: Array, radius: int) -> Array:
    """Dilates by a square of side 2 * radius + 1; the mask is False outside."""
    for axis in (mask.ndim - 2, mask.ndim - 1):
        window = [1] * mask.ndim
        window[axis] = 2 * radius + 1
        mask = lax.reduce_window(
            mask, False, lax.bitwise_or, tuple(window), (1,) * mask.ndim, "SAME"
        )
    return mask


def _erode(mask: Array, radius: int) -> Array:
    return ~_dilate(~mask, radius)
