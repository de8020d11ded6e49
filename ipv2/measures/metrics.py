"""Image quality in HU: PSNR, SSIM and RMSE by window; noise and bias by region.

All functions take `*b h w` images in HU and return float32 of shape `*b`, one number
per slice; the caller averages them. A window (low, high) clips both images and is the
data range. Numbers of different windows cannot be compared, so each is printed with its
window.

Noise is measured in one of two ways, and results state which:

- 'difference' (known truth): the standard deviation of image - truth over the region.
  The truth is aligned and noise-free, so this holds all error except the mean, blurred
  edges included. `local_noise_sd_hu` accompanies it: the median over the region of the
  standard deviation of that difference within 7x7 pixels. Edges hardly change it.
- 'local' (only a label is known): the median over the region of the standard deviation
  within 7x7 pixels of the image itself. A label partly shows another breath and has
  noise too, so a difference from it would measure anatomy. This value includes fine
  anatomy: compare it before and after denoising, not with zero. It excludes noise
  coarser than 7 pixels.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

NoiseMethod = Literal["difference", "local"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """A display window in HU; values outside are clipped."""

    center_hu: float | int
    width_hu: float | int

    def __post_init__(self):
        """Checks the width."""
        if not self.width_hu > 0:
            raise ValueError(f"a window's width must be > 0 HU, got {self.width_hu}")

    @property
    def low_hu(self) -> float | int:
        """The HU of black."""
        return self.center_hu - self.width_hu / 2

    @property
    def high_hu(self) -> float | int:
        """The HU of white."""
        return self.center_hu + self.width_hu / 2

    def __str__(self) -> str:
        """Returns centre/width, as radiology writes windows."""
        return f"{self.center_hu:g}/{self.width_hu:g}"


# The full range is that of a 12-bit scanner: -1024 to 3072 HU.
WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        "lung": Window(center_hu=-600, width_hu=1500),
        "soft_tissue": Window(center_hu=40, width_hu=400),
        "full": Window(center_hu=1024, width_hu=4096),
    }
)
REGIONS = ("background", "lung", "body")

# A slice with fewer pixels of a region is left out of that region's means.
MIN_REGION_PIXELS = 100
# Images are stored in whole HU, so smaller differences mean nothing. This keeps the
# PSNR of equal images finite: 112 dB in the full range.
_MIN_RMSE_HU = 0.01
_SSIM_SIZE, _SSIM_SIGMA, _SSIM_K1, _SSIM_K2 = 11, 1.5, 0.01, 0.03
_LOCAL_SIZE = 7


def rmse_hu(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"], window: Window
) -> Float[Array, "*b"]:
    """Returns the root mean squared difference after clipping to the window, in HU."""
    difference = _clip(image, window) - _clip(reference, window)
    return jnp.sqrt(jnp.mean(jnp.square(difference), axis=(-2, -1)))


def psnr_db(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"], window: Window
) -> Float[Array, "*b"]:
    """20 log10(width / RMSE) after clipping to the window, in dB.

    The RMSE is taken as at least 0.01 HU, so equal images have a finite PSNR.
    """
    error = jnp.maximum(rmse_hu(image, reference, window), _MIN_RMSE_HU)
    return 20 * jnp.log10(window.width_hu / error)


def ssim(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"], window: Window
) -> Float[Array, "*b"]:
    """Mean structural similarity (Wang et al., IEEE TIP 13(4), 2004, eq. 13).

    Images are clipped to the window and mapped to [0, 1], because SSIM is not invariant
    to an offset and HU are negative in the lung. Weights are Gaussian (11x11 pixels,
    sigma 1.5), covariances are of the population, K1 = 0.01, K2 = 0.03. Only pixels
    whose 11x11 neighbourhood lies inside the image count.

    Raises:
      ValueError: Images are smaller than 11x11.
    """
    if min(image.shape[-2:]) < _SSIM_SIZE:
        raise ValueError(f"SSIM needs images of at least 11x11, got {image.shape[-2:]}")
    return _unit_ssim(_to_unit(image, window), _to_unit(reference, window))


def region_pixels(mask: Bool[Array, "*b h w"]) -> Int[Array, "*b"]:
    """Returns the number of pixels of the region in each slice."""
    return jnp.sum(mask, axis=(-2, -1), dtype=jnp.int32)


def bias_hu(
    image: Float[Array, "*b h w"],
    reference: Float[Array, "*b h w"],
    mask: Bool[Array, "*b h w"],
) -> Float[Array, "*b"]:
    """Returns the mean of image - reference over the region, in HU; NaN if empty."""
    return _masked_mean(image - reference, mask)


def difference_sd_hu(
    image: Float[Array, "*b h w"],
    reference: Float[Array, "*b h w"],
    mask: Bool[Array, "*b h w"],
) -> Float[Array, "*b"]:
    """Returns the standard deviation of image - reference over the region.

    It is in HU, and NaN where the region is empty.
    """
    difference = image - reference
    mean = _masked_mean(difference, mask)[..., None, None]
    return jnp.sqrt(_masked_mean(jnp.square(difference - mean), mask))


def local_sd_hu(
    image: Float[Array, "*b h w"], mask: Bool[Array, "*b h w"]
) -> Float[Array, "*b"]:
    """Returns the median over the region of the deviation within 7x7 pixels, in HU.

    Neighbours outside the region or the image do not count; the sample variance of the
    other m divides by m - 1. Pixels with fewer than half of their 49 neighbours in the
    region are left out. The result is NaN if none is left.

    Raises:
      ValueError: Images are smaller than 7x7.
    """
    if min(image.shape[-2:]) < _LOCAL_SIZE:
        raise ValueError(f"local noise needs at least 7x7, got {image.shape[-2:]}")
    # Without the region's mean the squares are small enough for float32.
    mean = _masked_mean(image, mask)[..., None, None]
    inside = jnp.where(mask, image - mean, 0.0)
    border = [(0, 0)] * (image.ndim - 2) + [(_LOCAL_SIZE // 2,) * 2] * 2
    ones = np.ones(_LOCAL_SIZE)
    moments = jnp.stack([mask.astype(image.dtype), inside, jnp.square(inside)])
    count, total, squares = _filter_separably(jnp.pad(moments, [(0, 0), *border]), ones)
    variance = (squares - total**2 / jnp.maximum(count, 1)) / jnp.maximum(count - 1, 1)
    used = mask & (count > _LOCAL_SIZE**2 / 2)
    deviation = jnp.sqrt(jnp.maximum(variance, 0))
    return _masked_median(deviation, used)


def image_metrics(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"]
) -> dict[str, dict[str, Array]]:
    """Returns {'psnr_db' | 'ssim' | 'rmse_hu': {window: one number per slice}}."""
    if min(image.shape[-2:]) < _SSIM_SIZE:
        raise ValueError(f"SSIM needs images of at least 11x11, got {image.shape[-2:]}")
    # One array for all windows: XLA compiles a third of the code.
    similarity = _unit_ssim(
        *(
            jnp.stack([_to_unit(a, window) for window in WINDOWS.values()])
            for a in (image, reference)
        )
    )
    return {
        "psnr_db": {k: psnr_db(image, reference, w) for k, w in WINDOWS.items()},
        "ssim": dict(zip(WINDOWS, similarity, strict=True)),
        "rmse_hu": {k: rmse_hu(image, reference, w) for k, w in WINDOWS.items()},
    }


def region_metrics(
    image: Float[Array, "*b h w"],
    reference: Float[Array, "*b h w"],
    regions: Mapping[str, Bool[Array, "*b h w"]],
    method: NoiseMethod,
) -> dict[str, dict[str, Array]]:
    """Returns noise, bias and size of each region.

    Returns:
      {region: {'noise_sd_hu', 'bias_hu', 'pixels'}}, one number per slice; the method
      'difference' adds 'local_noise_sd_hu'.
    """
    masks = jnp.stack(list(regions.values()))
    image = jnp.broadcast_to(image, masks.shape)
    reference = jnp.broadcast_to(reference, masks.shape)
    numbers = {"bias_hu": bias_hu(image, reference, masks)}
    match method:
        case "difference":
            numbers["noise_sd_hu"] = difference_sd_hu(image, reference, masks)
            numbers["local_noise_sd_hu"] = local_sd_hu(image - reference, masks)
        case "local":
            numbers["noise_sd_hu"] = local_sd_hu(image, masks)
    numbers["pixels"] = region_pixels(masks)
    return {
        name: {key: value[k] for key, value in numbers.items()}
        for k, name in enumerate(regions)
    }


def _unit_ssim(x: Array, y: Array) -> Array:
    """Returns the SSIM of images in [0, 1]."""
    offsets = np.arange(_SSIM_SIZE) - _SSIM_SIZE // 2
    weights = np.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    moments = jnp.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _filter_separably(
        moments, weights / weights.sum()
    )
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    variance = mean_xx - mean_x**2 + mean_yy - mean_y**2
    structure = (2 * (mean_xy - mean_x * mean_y) + c2) / (variance + c2)
    return jnp.mean(luminance * structure, axis=(-2, -1))


def _to_unit(image: Array, window: Window) -> Array:
    return (_clip(image, window) - window.low_hu) / window.width_hu


def _clip(image: Array, window: Window) -> Array:
    return jnp.clip(image, window.low_hu, window.high_hu)


def _masked_mean(values: Array, mask: Array) -> Array:
    """Returns the mean over the mask in float32; an empty mask gives 0 / 0 = NaN."""
    # A masked sum of squares over 512x512 pixels reaches 1e12. XLA adds in blocks, so
    # float32 keeps 5 digits.
    total = jnp.sum(jnp.where(mask, values, 0), axis=(-2, -1), dtype=jnp.float32)
    return total / region_pixels(mask)


def _masked_median(values: Array, mask: Array) -> Array:
    """Returns the lower median over the mask of values >= 0; an empty mask gives NaN.

    Positive floats are in the order of their bits, so the median is found bit by bit
    from the number of smaller values, which is much faster than to sort a slice.
    """
    count = region_pixels(mask)
    middle = jnp.maximum(count - 1, 0) // 2
    bits = lax.bitcast_convert_type(values, jnp.int32)

    def decide(step: Array, found: Array) -> Array:
        trial = found | jnp.left_shift(jnp.int32(1), 30 - step)
        smaller = region_pixels(mask & (bits < trial[..., None, None]))
        return jnp.where(smaller <= middle, trial, found)

    found = lax.fori_loop(0, 31, decide, jnp.zeros_like(middle))
    median = lax.bitcast_convert_type(found, jnp.float32)
    return jnp.where(count > 0, median, jnp.nan)


def _filter_separably(image: Array, weights: np.ndarray) -> Array:
    """Convolves both axes with the weights, where all neighbours exist."""
    size = len(weights)
    for axis in (image.ndim - 1, image.ndim - 2):
        length = image.shape[axis] - size + 1
        parts = [
            weight * lax.slice_in_dim(image, k, k + length, axis=axis)
            for k, weight in enumerate(np.asarray(weights, np.float32))
        ]
        image = jax.tree.reduce(jnp.add, parts)
    return image
