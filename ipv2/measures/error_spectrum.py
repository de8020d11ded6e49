"""The texture of what is wrong: noise power spectrum of image - truth.

A denoiser that removes fine noise and leaves coarse noise makes blotches: the peak and
the mean frequency of what is left move down.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ipv2.measures.noise_analysis import periodograms, radial_average

_PATCH_PX = 32


def error_frequencies(
    difference_hu: Float[Array, "*b h w"],
    body: Bool[Array, "*b h w"],
    pixel_mm: Float[Array, "*b"],
) -> dict[str, Float[Array, "*b"]]:
    """Returns where the power of the difference lies, one number per slice.

    Spectra are those of 32 x 32 pixels, half a patch apart, that lie wholly in `body`
    (tapered, without their quadratic trend), averaged over patches and over rings.

    Args:
      difference_hu: image - truth, aligned.
      body: where to look.
      pixel_mm: size of a pixel.

    Returns:
      'peak_per_mm': frequency of the ring of greatest power; 'mean_per_mm': mean
      frequency, weighted by power and by the area of a ring. Cycles per mm; NaN where
      no patch lies in the body.
    """
    ring, radial, none = _radial(difference_hu, body)
    mean = (radial @ jnp.square(ring)) / (radial @ ring)  # a ring's area grows with it
    peak = ring[jnp.argmax(radial, axis=-1)]
    return {
        "peak_per_mm": jnp.where(none, jnp.nan, peak / pixel_mm),
        "mean_per_mm": jnp.where(none, jnp.nan, mean / pixel_mm),
    }


def error_spectrum(
    difference_hu: Float[Array, "*b h w"],
    body: Bool[Array, "*b h w"],
    pixel_mm: Float[Array, "*b"],
) -> dict[str, Float[Array, "*b k"]]:
    """Returns the spectrum whose frequencies `error_frequencies` returns.

    Args:
      difference_hu: image - truth, aligned.
      body: where to look.
      pixel_mm: size of a pixel.

    Returns:
      'frequency_per_mm': mean frequency of each ring, cycles per mm; 'power_hu2_mm2':
      mean power of the ring. Without the ring around zero, which the trend takes away;
      NaN where no patch lies in the body or the size of a pixel is not known.
    """
    ring, radial, none = _radial(difference_hu, body)
    power = radial[..., 1:]
    pixel = jnp.where(none, jnp.nan, pixel_mm)[..., None]
    return {
        "frequency_per_mm": jnp.broadcast_to(ring[1:], power.shape) / pixel,
        "power_hu2_mm2": power * jnp.square(pixel),
    }


def _radial(
    difference_hu: Float[Array, "*b h w"], body: Bool[Array, "*b h w"]
) -> tuple[Float[Array, " k"], Float[Array, "*b k"], Bool[Array, "*b"]]:
    """Returns rings in cycles per pixel, their power, and where no patch counts."""
    patches = _patches(difference_hu)
    whole = jnp.all(_patches(body), axis=(-2, -1))
    power = periodograms(patches, 1.0, taper=True)
    counted = jnp.where(whole[..., None, None], power, 0)
    spectrum = jnp.sum(counted, axis=-3) / jnp.sum(whole, axis=-1)[..., None, None]
    frequency, radial = radial_average(spectrum, 1.0)
    # The trend took away what lies below one cycle per patch.
    radial = radial.at[..., 0].set(0)
    return jnp.asarray(frequency, jnp.float32), radial, ~jnp.any(whole, axis=-1)


def _patches(image: Array) -> Array:
    """Returns (*b, p, 32, 32): patches half a patch apart."""
    starts = [
        np.arange(0, side - _PATCH_PX + 1, _PATCH_PX // 2) for side in image.shape[-2:]
    ]
    rows, columns = (start[:, None] + np.arange(_PATCH_PX) for start in starts)
    cut = image[..., rows[:, None, :, None], columns[None, :, None, :]]
    return cut.reshape(*image.shape[:-2], -1, _PATCH_PX, _PATCH_PX)
