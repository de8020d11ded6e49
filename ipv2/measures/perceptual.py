"""Image quality as eyes judge it, by window: MAE, GMSD, MS-SSIM and VIF.

All functions take `*b h w` images in HU and return float32 of shape `*b`, one number
per slice. A window clips both images and is the data range; numbers of different
windows cannot be compared. Public code often gives VIF another range: see
`vif_ldct_benchmark`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ipv2.measures.metrics import WINDOWS, Window

# Weights of the five scales, fine to coarse (Wang et al. 2003, section 3.2).
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SSIM_SIZE, _SSIM_SIGMA, _SSIM_K1, _SSIM_K2 = 11, 1.5, 0.01, 0.03
# Halved four times, rounded up, an image of 161 pixels still holds 11.
MS_SSIM_MIN_PX = 161
# On grey levels of 0 to 255 (Xue et al. 2014, section III).
_GMSD_CONSTANT = 170 / 255**2
_GMSD_MIN_PX = 6
# (size, sigma) in pixels of the four scales of vifp_mscale.
_VIF_FILTERS = tuple((size, size / 5) for size in (17, 9, 5, 3))
_VIF_MIN_PX = 41
# Variance of an observer's noise, in squared grey levels.
_VIF_NOISE = 2.0
# Of the mean square: what float32 makes of the variance of a constant.
_VIF_ROUNDING = 1e-6
# ldct-benchmark clips to 0 ... 2924 after it adds 1024, and keeps HU.
LDCT_BENCHMARK = Window(center_hu=438, width_hu=2924)


def mae_hu(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"], window: Window
) -> Float[Array, "*b"]:
    """Returns the mean absolute difference after clipping to the window, in HU."""
    difference = _clip(image, window) - _clip(reference, window)
    return jnp.mean(jnp.abs(difference), axis=(-2, -1))


def gmsd(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"], window: Window
) -> Float[Array, "*b"]:
    """Gradient magnitude similarity deviation (Xue et al., IEEE TIP 23(2), 2014).

        GMS = (2 m_i m_r + c) / (m_i^2 + m_r^2 + c),   GMSD = sd of GMS over pixels

    m is the magnitude of the Prewitt gradient of the image, mapped to [0, 1] and halved
    in size by means of 2 x 2 pixels; c = 170 / 255^2. 0 for equal images; larger is
    worse. As in the authors' code, zeros surround the image. The deviation is that of
    the population.

    Raises:
      ValueError: Images are smaller than 6x6.
    """
    _check_size(image, _GMSD_MIN_PX, "GMSD")
    return _unit_gmsd(_to_unit(image, window), _to_unit(reference, window))


def ms_ssim(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"], window: Window
) -> Float[Array, "*b"]:
    """Multi-scale SSIM (Wang, Simoncelli, Bovik, Asilomar 2003, eq. 7).

        MS-SSIM = l_5^w5 * prod_j cs_j^wj,   w = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333

    l and cs are SSIM's terms as in `metrics.ssim`, means over pixels; the last scale
    takes the mean of l * cs. Each scale halves the size by means of 2 x 2 pixels; an
    odd last row or column is repeated, as in the authors' code. A negative mean counts
    as 0. Other code drops or zero-pads an odd line: numbers agree from 176 pixels on
    where sides are multiples of 16.

    Raises:
      ValueError: Images are smaller than 161x161, where the fifth scale would be
        smaller than SSIM's 11x11 pixels. Fewer scales would be another measure.
    """
    _check_size(image, MS_SSIM_MIN_PX, "MS-SSIM")
    return _unit_ms_ssim(_to_unit(image, window), _to_unit(reference, window))


def vif(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"], window: Window
) -> Float[Array, "*b"]:
    """Visual information fidelity in the pixel domain: Sheikh and Bovik's vifp_mscale.

    (Sheikh, Bovik, IEEE TIP 15(2), 2006.) At four scales, the image is g * reference
    plus noise of variance v in the neighbourhood of each pixel; s^2 is the reference's
    variance there and n the variance of an observer's noise:

        VIF = sum log(1 + g^2 s^2 / (v + n)) / sum log(1 + s^2 / n)

    n = 2 squared grey levels, where the window has 255. 1 for equal images, 0 for an
    image without information, above 1 for one with more contrast. NaN if the reference
    is constant within the window.

    Raises:
      ValueError: Images are smaller than 41x41.
    """
    _check_size(image, _VIF_MIN_PX, "VIF")
    return _levels_vif(*(255 * (_to_unit(a, window) - 0.5) for a in (image, reference)))


def vif_ldct_benchmark(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"]
) -> Float[Array, "*b"]:
    """VIF as ldct-benchmark reports it (Eulig et al., Medical Physics 51(12), 2024).

    It clips to -1024 ... 1900 HU and takes n = 2 HU^2, although 2 was meant for 255
    grey levels: noise that no observer sees costs fidelity.

    Raises:
      ValueError: Images are smaller than 41x41.
    """
    _check_size(image, _VIF_MIN_PX, "VIF")
    return _levels_vif(*(_ldct_levels(a) for a in (image, reference)))


def perceptual_metrics(
    image: Float[Array, "*b h w"], reference: Float[Array, "*b h w"]
) -> dict[str, Any]:
    """Returns {'mae_hu' | 'gmsd' | 'ms_ssim' | 'vif': {window: one number per slice}}.

    Beside them `vif_ldct_benchmark`, one number per slice. MS-SSIM is NaN for images
    below 161 pixels, VIF below 41; see `ms_ssim` and `vif`.
    """
    units = [
        jnp.stack([_to_unit(a, window) for window in WINDOWS.values()])
        for a in (image, reference)
    ]
    none = jnp.full((len(WINDOWS) + 1, *image.shape[:-2]), jnp.nan)
    smallest = min(image.shape[-2:])
    vifs = none
    if smallest >= _VIF_MIN_PX:
        # One array for all ranges: XLA compiles half of the code.
        levels = (
            jnp.concatenate([255 * (unit - 0.5), _ldct_levels(a)[None]])
            for unit, a in zip(units, (image, reference), strict=True)
        )
        vifs = _levels_vif(*levels)
    by_name = {
        "gmsd": _unit_gmsd(*units),
        "ms_ssim": _unit_ms_ssim(*units) if smallest >= MS_SSIM_MIN_PX else none[:-1],
        "vif": vifs[:-1],
    }
    return {
        "mae_hu": {k: mae_hu(image, reference, w) for k, w in WINDOWS.items()},
        **{
            name: dict(zip(WINDOWS, values, strict=True))
            for name, values in by_name.items()
        },
        "vif_ldct_benchmark": vifs[-1],
    }


def _ldct_levels(image: Array) -> Array:
    """Returns HU as ldct-benchmark clips them."""
    # Half-way between lung and soft tissue: small squares keep digits in float32.
    return _clip(image, LDCT_BENCHMARK) + 500.0


def _unit_gmsd(x: Array, y: Array) -> Array:
    """Returns the GMSD of images in [0, 1]."""
    step, box = np.array([1.0, 0.0, -1.0]) / 3, np.ones(3)

    def magnitude(unit: Array) -> Array:
        padded = _pad(_halved(_pad(unit, *_to_even(unit.shape))), (1, 1), (1, 1))
        return jnp.hypot(_filter(padded, step, box), _filter(padded, box, step))

    mx, my = magnitude(x), magnitude(y)
    similarity = (2 * mx * my + _GMSD_CONSTANT) / (mx**2 + my**2 + _GMSD_CONSTANT)
    return jnp.std(similarity, axis=(-2, -1))


def _unit_ms_ssim(x: Array, y: Array) -> Array:
    """Returns the MS-SSIM of images in [0, 1]."""
    last = len(_SCALE_WEIGHTS) - 1
    result = jnp.ones(x.shape[:-2], jnp.float32)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        luminance, structure = _ssim_terms(x, y)
        values = luminance * structure if scale == last else structure
        mean = jnp.mean(values, axis=(-2, -1))
        result = result * jnp.maximum(mean, 0) ** weight
        if scale < last:
            pads = _to_even(x.shape)
            x, y = (_halved(_pad(a, *pads, mode="edge")) for a in (x, y))
    return result


def _ssim_terms(x: Array, y: Array) -> tuple[Array, Array]:
    """Returns the luminance, and contrast times structure, of images in [0, 1]."""
    weights = _gaussian_weights(_SSIM_SIZE, _SSIM_SIGMA)
    mean_x, mean_y, xx, yy, xy = _moments(x, y, weights)
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * xy + c2) / (xx + yy + c2)


def _levels_vif(image: Array, reference: Array) -> Array:
    """Returns the VIF for an observer whose noise has a variance of 2."""
    kept = jnp.zeros(image.shape[:-2], jnp.float32)
    whole = kept
    for scale, (size, sigma) in enumerate(_VIF_FILTERS):
        weights = _gaussian_weights(size, sigma)
        if scale > 0:
            image, reference = (
                _filter(a, weights, weights)[..., ::2, ::2] for a in (image, reference)
            )
        mean, _, variance, image_variance, both = _moments(reference, image, weights)
        flat = variance <= _VIF_ROUNDING * mean**2
        variance = jnp.where(flat, 0, variance)
        # Noise alone where the image falls as the reference rises: the gain is 0.
        gain = jnp.where(flat, 0, jnp.maximum(both, 0) / jnp.where(flat, 1, variance))
        rest = jnp.maximum(image_variance - gain * both, 0)
        kept += _log_sum(gain**2 * variance / (rest + _VIF_NOISE))
        whole += _log_sum(variance / _VIF_NOISE)
    return kept / whole


def _log_sum(ratio: Array) -> Array:
    return jnp.sum(jnp.log1p(ratio), axis=(-2, -1))


def _moments(x: Array, y: Array, weights: np.ndarray) -> tuple[Array, ...]:
    """Returns local means of x and y, variances of x and y, and their covariance."""
    moments = jnp.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = _filter(moments, weights, weights)
    return mean_x, mean_y, xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y


def _gaussian_weights(size: int, sigma: float) -> np.ndarray:
    offset = np.arange(size) - size // 2
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    return weight / weight.sum()


def _filter(image: Array, down: np.ndarray, across: np.ndarray) -> Array:
    """Correlates rows and columns with weights, where all neighbours exist."""
    for axis, weights in ((image.ndim - 1, across), (image.ndim - 2, down)):
        length = image.shape[axis] - len(weights) + 1
        parts = [
            float(weight) * lax.slice_in_dim(image, k, k + length, axis=axis)
            for k, weight in enumerate(weights)
            if weight
        ]
        image = jax.tree.reduce(jnp.add, parts)
    return image


def _halved(image: Array) -> Array:
    """Returns means of 2 x 2 pixels; sides are even."""
    rows = image[..., ::2, :] + image[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _to_even(shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the padding that makes both sides even."""
    return (0, shape[-2] % 2), (0, shape[-1] % 2)


def _pad(
    image: Array, down: tuple[int, int], across: tuple[int, int], mode: str = "constant"
) -> Array:
    return jnp.pad(image, [(0, 0)] * (image.ndim - 2) + [down, across], mode=mode)


def _check_size(image: Array, least: int, name: str) -> None:
    if min(image.shape[-2:]) < least:
        raise ValueError(
            f"{name} needs images of at least {least}x{least}, got {image.shape[-2:]}"
        )


def _to_unit(image: Array, window: Window) -> Array:
    return (_clip(image, window) - window.low_hu) / window.width_hu


def _clip(image: Array, window: Window) -> Array:
    return jnp.clip(image, window.low_hu, window.high_hu)
