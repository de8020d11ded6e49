"""How steep edges stay: the slope of vessels and of the pleura.

A denoiser that blurs, or that was trained on edges at two places, flattens them:

    slope = sum(grad image . n) / sum(grad truth . n),   n = grad truth / |grad truth|

over the pixels of a class of edges. 1 is as steep as the truth; noise that is
independent of the truth adds nothing to the sum. Gradients are those of the images
smoothed by 1 pixel.

The truth must be aligned with the image.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ipv2.kernels import bit_mask, morphology
from ipv2.kernels.smoothing import gaussian

EDGES = ("vessels", "pleura")
_SMOOTH_PX = 1.0
# HU per pixel: three times the slope that noise of 40 HU has at this smoothing.
_STEEP_HU = 50.0
# Pixels at 512: vessels and fissures narrower than twice the first are lung; what lies
# nearer to the outline than the second is pleura, and vessels lie further in than that.
_FILL_PX, _NEAR_PX, _FAR_PX = 6, 2, 6


def edge_slopes(
    image_hu: Float[Array, "*b h w"],
    truth_hu: Float[Array, "*b h w"],
    lung: Bool[Array, "*b h w"],
) -> dict[str, Float[Array, "*b"]]:
    """Returns {'vessels', 'pleura'}: slope as a share of the truth's, one a slice.

    Args:
      image_hu: HU.
      truth_hu: aligned truth, HU.
      lung: rough mask of the truth's lungs; it may omit vessels.

    Returns:
      NaN where a slice has no such edge.
    """
    row, column = _gradient(truth_hu)
    steepness = jnp.hypot(row, column)
    image_row, image_column = _gradient(image_hu)
    along = image_row * row + image_column * column
    along = along / jnp.maximum(steepness, 1e-6)
    result = {}
    for name, mask in edge_masks(truth_hu, lung).items():
        found = jnp.sum(jnp.where(mask, along, 0), axis=(-2, -1))
        expected = jnp.sum(jnp.where(mask, steepness, 0), axis=(-2, -1))
        result[name] = jnp.where(expected > 0, found / expected, jnp.nan)
    return result


def edge_masks(
    truth_hu: Float[Array, "*b h w"], lung: Bool[Array, "*b h w"]
) -> dict[str, Bool[Array, "*b h w"]]:
    """Returns the steep pixels inside the lungs, and those at their outline."""
    height = truth_hu.shape[-2]
    scale = min(truth_hu.shape[-2:]) / 512
    fill, near, far = (
        max(1, round(px * scale)) for px in (_FILL_PX, _NEAR_PX, _FAR_PX)
    )
    filled = morphology.closing_disc(bit_mask.pack(lung), height, fill)
    steep = bit_mask.pack(jnp.hypot(*_gradient(truth_hu)) > _STEEP_HU)
    outline = morphology.dilate_disc(filled, height, near)
    outline = outline & ~morphology.erode_disc(filled, height, near)
    inside = morphology.erode_disc(filled, height, far)
    return {
        "vessels": bit_mask.unpack(steep & inside, height),
        "pleura": bit_mask.unpack(steep & outline, height),
    }


def _gradient(image: Array) -> tuple[Array, Array]:
    """Returns (down, across) of the smoothed image, HU per pixel."""
    smooth = gaussian(image, _SMOOTH_PX)
    down, across = jnp.gradient(smooth, axis=(-2, -1))
    return down, across
