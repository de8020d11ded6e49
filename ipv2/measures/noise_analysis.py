"""Noise of CT images as physicists report it: power spectrum, map, deviation by region.

A public library: the calibration of scanners uses the spectra, and users may call every
function of this module on their own images.

The noise power spectrum (NPS) of patches of Ny x Nx pixels of dy x dx mm is the mean of
the squared magnitude of their transforms, never the transform of a mean:

    NPS(f) = dx dy / (Nx Ny) * < |DFT(w (patch - trend))|^2 >              [HU^2 mm^2]

(ICRU Report 87, 2012; w = 1, or a taper of mean square 1). The sum over frequencies,
sum(NPS) dfx dfy with df = 1 / (N d), is the variance of the patches without their trend
(Parseval's identity, exact without a taper). Spectra are in the DFT's order, frequency
zero first; `jnp.fft.fftshift` moves it to the middle for a picture.
"""

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ipv2.measures import metrics

Trend = Literal["mean", "quadratic"]

_MAP_SIZE = 7
# Pixels along each axis that `noise_map` needs.
MAP_MIN_PX = 3 * _MAP_SIZE
# An edge crosses at most five of nine windows, so the fourth smallest is free of it.
_RANK = 3


def hann_taper(shape: tuple[int, int]) -> np.ndarray:
    """Returns (h, w) weights of mean square 1: a Hann window along each axis.

    The transform sees a step at a patch's border. Without a taper, leakage from it
    hides the weak high frequencies of a soft kernel.
    """
    lines = [0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in shape]
    weight = np.outer(*lines)
    return (weight / np.sqrt(np.mean(weight**2))).astype(np.float32)


def detrend(
    patches: Float[Array, "*b h w"], trend: Trend = "quadratic"
) -> Float[Array, "*b h w"]:
    """Subtracts the least-squares trend: a constant, or a polynomial of degree 2.

    The HU of organs vary slowly. The noise that is lost with them lies below one cycle
    per patch.
    """
    h, w = patches.shape[-2:]
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    match trend:
        case "mean":
            terms = [np.ones_like(x)]
        case "quadratic":
            terms = [np.ones_like(x), x, y, x * x, x * y, y * y]
        case _:
            raise ValueError(f"trend = {trend!r}; 'mean' or 'quadratic'.")
    basis, _ = np.linalg.qr(np.stack(terms).reshape(len(terms), -1).T)
    basis = jnp.asarray(basis, patches.dtype)
    # Subtract the mean first: HU of -1000 cost float32 three digits of small terms.
    flat = patches.reshape(*patches.shape[:-2], h * w)
    flat = flat - jnp.mean(flat, axis=-1, keepdims=True)
    return (flat - (flat @ basis) @ basis.T).reshape(patches.shape)


def periodograms(
    patches: Float[Array, "*b h w"],
    spacing_mm: float | int,
    *,
    trend: Trend = "quadratic",
    taper: bool = False,
) -> Float[Array, "*b h w"]:
    """Returns the squared magnitude of each patch's transform, HU^2 mm^2.

    This is the NPS of a single patch. Its values follow an exponential distribution
    around their expectation (100 % deviation); average many.

    Args:
      patches: HU.
      spacing_mm: size of the square pixels; 1 gives HU^2 pixel^2.
      trend: the trend that is subtracted first.
      taper: whether a Hann taper is applied after that. It blurs the spectrum over
        neighbouring frequencies with weights 1/6, 2/3, 1/6 along each axis.
    """
    if not spacing_mm > 0:
        raise ValueError(f"spacing_mm = {spacing_mm}; a size above 0 mm.")
    h, w = patches.shape[-2:]
    residual = detrend(patches.astype(jnp.float32), trend)
    if taper:
        weight = jnp.asarray(hann_taper((h, w)))
        residual = residual * jnp.expand_dims(weight, range(residual.ndim - 2))
    transform = jnp.fft.fft2(residual)
    power = jnp.square(transform.real) + jnp.square(transform.imag)
    return power * (spacing_mm**2 / (h * w))


def noise_power_spectrum(
    patches: Float[Array, "*b p h w"],
    spacing_mm: float | int,
    *,
    trend: Trend = "quadratic",
    taper: bool = False,
) -> Float[Array, "*b h w"]:
    """Returns the 2-D NPS: the mean of the `periodograms` of p patches, HU^2 mm^2.

    Its relative standard error is 1 / sqrt(p) at each frequency.
    """
    return jnp.mean(
        periodograms(patches, spacing_mm, trend=trend, taper=taper), axis=-3
    )


def radial_frequency(shape: tuple[int, int], spacing_mm: float | int) -> np.ndarray:
    """Returns the (h, w) radial frequency in cycles per mm, in the DFT's order."""
    h, w = shape
    row = np.fft.fftfreq(h, spacing_mm)[:, None]
    return np.hypot(row, np.fft.fftfreq(w, spacing_mm)[None])


def radial_average(
    spectrum: Float[Array, "*b h w"], spacing_mm: float | int
) -> tuple[Float[np.ndarray, " k"], Float[Array, "*b k"]]:
    """Returns the 1-D NPS: means over rings one frequency step wide.

    Rings are 1 / (N d) wide, where N is the shorter side. The first ring surrounds
    frequency zero; the last ends at Nyquist, 1 / (2 d). The corners beyond it are left
    out: sum the 2-D spectrum to get the variance.

    Returns:
      (k,) mean frequency of each ring, cycles per mm; and the means, `*b k`.
    """
    h, w = spectrum.shape[-2:]
    n = min(h, w)
    radius = radial_frequency((h, w), spacing_mm).reshape(-1)
    ring = np.floor(radius * n * spacing_mm + 0.5).astype(int)
    rings = n // 2 + 1
    member = (ring[:, None] == np.arange(rings)).astype(np.float32)
    member /= member.sum(axis=0)
    flat = spectrum.reshape(*spectrum.shape[:-2], h * w)
    return radius @ member, flat @ jnp.asarray(member)


def integrated_noise_hu(
    spectrum: Float[Array, "*b h w"], spacing_mm: float | int
) -> Float[Array, "*b"]:
    """Returns the standard deviation to which a 2-D NPS integrates, HU."""
    h, w = spectrum.shape[-2:]
    step = 1 / (h * w * spacing_mm**2)
    return jnp.sqrt(jnp.sum(spectrum, axis=(-2, -1)) * step)


def noise_map(image_hu: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
    """Returns the local standard deviation of the noise at every pixel, HU.

    A window's value is the residual deviation from a plane fitted to 7 x 7 pixels (46
    degrees of freedom), so slopes do not count as noise. A pixel's value is the fourth
    smallest of nine windows: the one around the pixel and those 7 pixels away in each
    direction. A straight edge crosses three to five of them, so edges hardly show.

    The map reads 3 % low in white noise. It excludes noise coarser than 7 pixels and
    the part of correlated noise that looks like a plane: compare maps only with maps.
    Near the border, windows repeat the border's pixels.

    Raises:
      ValueError: Images are smaller than 21 pixels.
    """
    if min(image_hu.shape[-2:]) < MAP_MIN_PX:
        raise ValueError(
            f"a noise map needs at least {MAP_MIN_PX} pixels along each axis, got "
            f"{image_hu.shape[-2:]}."
        )
    deviation = jnp.sqrt(_plane_residual(image_hu.astype(jnp.float32)))
    around = [
        _shift(_shift(deviation, dy, -2), dx, -1)
        for dy in (-_MAP_SIZE, 0, _MAP_SIZE)
        for dx in (-_MAP_SIZE, 0, _MAP_SIZE)
    ]
    return jnp.sort(jnp.stack(around), axis=0)[_RANK]


def noise_sd_by_region(
    image_hu: Float[Array, "*b h w"],
    regions: Mapping[str, Bool[Array, "*b h w"]],
    reference_hu: Float[Array, "*b h w"] | None = None,
) -> dict[str, Float[Array, "*b"]]:
    """Returns {region: noise standard deviation, HU}; NaN where a region is empty.

    The value is the median over the region of the deviation within 7 x 7 pixels (see
    `metrics.local_sd_hu`). With a reference it is that of image - reference, in which
    anatomy cancels; without one it is that of the image, fine anatomy included.

    Args:
      image_hu: HU.
      regions: masks by name.
      reference_hu: aligned image: the truth, or the image before noise was added. For
        two independent scans of one dose, divide the result by sqrt(2).
    """
    measured = image_hu if reference_hu is None else image_hu - reference_hu
    return {name: metrics.local_sd_hu(measured, mask) for name, mask in regions.items()}


def _plane_residual(image: jax.Array) -> jax.Array:
    """Returns the variance around the plane fitted to 7 x 7 pixels, for each pixel."""
    half = _MAP_SIZE // 2
    offset = np.arange(-half, half + 1, dtype=np.float32)
    flat, slope = np.ones_like(offset), offset
    # Squares of 1000 HU would cost float32 about 0.2 HU^2 of the variance.
    image = image - jnp.mean(image, axis=(-2, -1), keepdims=True)
    border = [(0, 0)] * (image.ndim - 2) + [(half, half)] * 2
    padded = jnp.pad(image, border, mode="edge")

    def total(values: jax.Array, down: np.ndarray, across: np.ndarray) -> jax.Array:
        for axis, weight in ((-2, down), (-1, across)):
            size = values.shape[axis] - _MAP_SIZE + 1
            terms = [
                float(weight[k]) * jax.lax.slice_in_dim(values, k, k + size, axis=axis)
                for k in range(_MAP_SIZE)
            ]
            values = functools.reduce(jnp.add, terms)
        return values

    count = _MAP_SIZE**2
    moment = float(np.sum(offset**2)) * _MAP_SIZE
    squares = total(padded * padded, flat, flat)
    squares = squares - jnp.square(total(padded, flat, flat)) / count
    squares = squares - jnp.square(total(padded, slope, flat)) / moment
    squares = squares - jnp.square(total(padded, flat, slope)) / moment
    return jnp.maximum(squares, 0.0) / (count - 3)


def _shift(image: jax.Array, by: int, axis: int) -> jax.Array:
    """Shifts the image along an axis and repeats its border."""
    if not by:
        return image
    size = image.shape[axis]
    padding = [(0, 0)] * image.ndim
    padding[axis] = (max(by, 0), max(-by, 0))
    padded = jnp.pad(image, padding, mode="edge")
    return jax.lax.slice_in_dim(padded, max(-by, 0), max(-by, 0) + size, axis=axis)
