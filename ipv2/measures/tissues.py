"""What a denoiser does to each tissue: HU bias and noise, and what is left of foci.

Regions such as "body" average away what PSNR hides too: bone that darkens by 100 HU
covers a few percent of a slice. Tissues are ranges of the truth's HU:

| tissue | HU            | what it holds                                               |
|--------|---------------|-------------------------------------------------------------|
| air    | below -950    | outside the body, trachea, bowel gas                        |
| lung   | -950 ... -600 | parenchyma; inside the lungs alone: foam is as dark         |
| fat    | -140 ... -40  |                                                             |
| soft   | -10 ... 120   | muscle, organs, blood without contrast agent                |
| bone   | above 200     | bone, calcium, vessels full of contrast agent               |

The truth is smoothed first (sigma 1.5 pixels), so that its own noise does not choose
pixels. Each tissue is then eroded by 2 pixels at 512, so that edges do not count.

The truth must be aligned with the image.
"""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ipv2.kernels import bit_mask, morphology
from ipv2.kernels.smoothing import gaussian
from ipv2.measures.metrics import bias_hu, difference_sd_hu, region_pixels

# (from, to) HU.
TISSUES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "air": (-jnp.inf, -950.0),
        "lung": (-950.0, -600.0),
        "fat": (-140.0, -40.0),
        "soft": (-10.0, 120.0),
        "bone": (200.0, jnp.inf),
    }
)
DENSE_HU = 300.0
_SMOOTH_PX = 1.5
_ERODE_PX = 2
# A peak is that of a tile's smoothed image: a single pixel's would be noise.
_TILE_PX = 16
_PEAK_PX = 1.0


def tissue_masks(
    truth_hu: Float[Array, "*b h w"], lung: Bool[Array, "*b h w"]
) -> dict[str, Bool[Array, "*b h w"]]:
    """Returns the inner pixels of every tissue of `TISSUES`.

    Args:
      truth_hu: HU.
      lung: mask of the lungs.
    """
    height = truth_hu.shape[-2]
    radius = max(1, round(_ERODE_PX * min(truth_hu.shape[-2:]) / 512))
    smooth = gaussian(truth_hu, _SMOOTH_PX)
    masks = {}
    for name, (low, high) in TISSUES.items():
        found = (smooth >= low) & (smooth < high)
        words = bit_mask.pack(found & lung if name == "lung" else found)
        inner = morphology.erode_disc(words, height, radius)
        masks[name] = bit_mask.unpack(inner, height)
    return masks


def tissue_metrics(
    image_hu: Float[Array, "*b h w"],
    truth_hu: Float[Array, "*b h w"],
    lung: Bool[Array, "*b h w"],
) -> dict[str, dict[str, Float[Array, "*b"]]]:
    """Returns bias and noise of every tissue, one number per slice.

    Args:
      image_hu: HU.
      truth_hu: aligned truth, HU.
      lung: mask of the lungs.

    Returns:
      {tissue: {'bias_hu': mean of image - truth, 'noise_sd_hu': its standard deviation,
      'pixels'}}; NaN where a slice has none of the tissue.
    """
    masks = tissue_masks(truth_hu, lung)
    return {
        name: {
            "bias_hu": bias_hu(image_hu, truth_hu, mask),
            "noise_sd_hu": difference_sd_hu(image_hu, truth_hu, mask),
            "pixels": region_pixels(mask),
        }
        for name, mask in masks.items()
    }


def dense_foci_metrics(
    image_hu: Float[Array, "*b h w"], truth_hu: Float[Array, "*b h w"]
) -> dict[str, Float[Array, "*b"]]:
    """Returns the share of dense foci (above 300 HU) that is kept, one number a slice.

    Returns:
      'mean_kept': mean of the image over the mean of the truth on the foci's pixels.
      'peak_kept': the same of peaks, summed over tiles of 16 x 16 pixels that hold a
      focus; a peak is the largest value of the image smoothed by 1 pixel, which noise
      alone raises. NaN where a slice has no focus.
    """
    truth = gaussian(truth_hu, _PEAK_PX)
    image = gaussian(image_hu, _PEAK_PX)
    foci = truth > DENSE_HU
    count = region_pixels(foci)

    def peaks(smooth: Array) -> Array:
        """Sums the largest value of every tile that holds a focus."""
        tiles = _tiles(jnp.where(foci, smooth, -jnp.inf))
        largest = jnp.max(tiles, axis=(-3, -1))
        return jnp.sum(jnp.where(jnp.isfinite(largest), largest, 0), axis=(-2, -1))

    def total(values: Array) -> Array:
        return jnp.sum(jnp.where(foci, values, 0), axis=(-2, -1))

    none = count == 0
    return {
        "mean_kept": jnp.where(none, jnp.nan, total(image_hu) / total(truth_hu)),
        "peak_kept": jnp.where(none, jnp.nan, peaks(image) / peaks(truth)),
        "pixels": count,
    }


def _tiles(image: Array) -> Array:
    """Cuts (*b, h, w) into (*b, h / 16, 16, w / 16, 16), filled up with -inf."""
    h, w = image.shape[-2:]
    filling = [(0, 0)] * (image.ndim - 2) + [(0, -h % _TILE_PX), (0, -w % _TILE_PX)]
    padded = jnp.pad(image, filling, constant_values=-jnp.inf)
    rows, columns = (side // _TILE_PX for side in padded.shape[-2:])
    return padded.reshape(*image.shape[:-2], rows, _TILE_PX, columns, _TILE_PX)
