"""How noisy a scan is, seen in the scan alone."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ipv2.kernels.smoothing import gaussian
from ipv2.measures.noise_analysis import noise_map

# Fat, muscle, organs: homogeneous enough to show noise, whatever the dose. The slice is
# smoothed first, so that its noise does not choose the pixels.
_SOFT_HU = (-200.0, 200.0)
_SMOOTH_PX = 3.0
_PERCENTILE = 10
# Fewer say nothing about a slice.
_FEWEST_PIXELS = 500


def soft_tissue_noise_hu(image_hu: Float[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Returns the 10th percentile of the noise map over soft tissue, HU.

    Most windows of a small image hold an edge; a tenth of them do not. The number reads
    low, by a tenth in white noise, and leaves out what `noise_analysis.noise_map` does:
    compare it only with other numbers of this function.

    Args:
      image_hu: HU, at least 21 pixels along each axis.

    Returns:
      NaN where a slice has fewer than 500 pixels of soft tissue.
    """
    smooth = gaussian(image_hu, _SMOOTH_PX)
    soft = (smooth > _SOFT_HU[0]) & (smooth < _SOFT_HU[1])
    noise = jnp.where(soft, noise_map(image_hu), jnp.nan)
    flat = noise.reshape(*noise.shape[:-2], -1)
    level = jnp.nanpercentile(flat, _PERCENTILE, axis=-1)
    enough = jnp.sum(soft, axis=(-2, -1)) >= _FEWEST_PIXELS
    return jnp.where(enough, level, jnp.nan)
