"""Noise of CT images as physicists report it: power spectrum, map, deviation by region.

The noise power spectrum (NPS) of patches of Ny x Nx pixels of dy x dx mm is the mean of
the squared magnitude of their transforms, never the transform of a mean:

    NPS(f) = dx dy / (Nx Ny) * < |DFT(w (patch - trend))|^2 >              [HU^2 mm^2]

(ICRU Report 87, 2012; w = 1, or a taper of mean square 1). Over all frequencies it adds
up to the variance of what is left after the trend: sum(NPS) dfx dfy, df = 1 / (N d), is
Parseval's identity, exact without a taper. Spectra are in the DFT's order, frequency
zero first; `jnp.fft.fftshift` puts it in the middle of a picture.
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
# Of nine windows an edge leaves four alone at least.
_RANK = 3


def hann_taper(shape: tuple[int, int]) -> np.ndarray:
    """(h, w) weights of mean square 1, near zero at the border: Hann along each axis.

    A patch's border is a step for the transform; without a taper its leak hides the
    weak high frequencies of a soft kernel.
    """
    lines = [0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in shape]
    weight = np.outer(*lines)
    return (weight / np.sqrt(np.mean(weight**2))).astype(np.float32)


def detrend(
    patches: Float[Array, "*b h w"], trend: Trend = "quadratic"
) -> Float[Array, "*b h w"]:
    """Patches less their least-squares trend: a constant, or a polynomial of degree 2.

    Organs shade slowly; what this takes away of the noise is below one cycle a patch.
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
    # The mean first: HU of -1000 would cost float32 three digits of the small terms.
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
    """Squared magnitude of each patch's transform, HU^2 mm^2: a noisy NPS of its own.

    Each value scatters as an exponential about its expectation (100 %); average many.

    Args:
      patches: HU.
      spacing_mm: size of the square pixels; 1 gives HU^2 pixel^2.
      trend: what is taken away first.
      taper: whether a Hann taper is applied after that; it blurs the spectrum over
        neighbouring frequencies, by weights of 1/6, 2/3, 1/6 along each axis.
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
    """2-D NPS: mean of the `periodograms` of p patches, HU^2 mm^2.

    A mean of p patches has a relative standard error of 1 / sqrt(p) at each frequency.
    """
    return jnp.mean(
        periodograms(patches, spacing_mm, trend=trend, taper=taper), axis=-3
    )


def radial_frequency(shape: tuple[int, int], spacing_mm: float | int) -> np.ndarray:
    """(h, w) distance from frequency zero, cycles per mm, in the DFT's order."""
    h, w = shape
    row = np.fft.fftfreq(h, spacing_mm)[:, None]
    return np.hypot(row, np.fft.fftfreq(w, spacing_mm)[None])


def radial_average(
    spectrum: Float[Array, "*b h w"], spacing_mm: float | int
) -> tuple[Float[np.ndarray, " k"], Float[Array, "*b k"]]:
    """1-D NPS: means over rings one frequency step wide, up to the highest frequency.

    Rings are 1 / (N d) wide, N the shorter side, the first of them around frequency
    zero; the last ends at Nyquist, 1 / (2 d). The corners beyond are left out: sum the
    2-D spectrum for the variance.

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
    """Standard deviation that a 2-D NPS integrates to, HU."""
    h, w = spectrum.shape[-2:]
    step = 1 / (h * w * spacing_mm**2)
    return jnp.sqrt(jnp.sum(spectrum, axis=(-2, -1)) * step)


def noise_map(image_hu: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
    """Local standard deviation of the noise at every pixel, HU; edges hardly show.

    The residual deviation about a plane fitted to 7 x 7 pixels (46 degrees of freedom:
    slopes do not count as noise), then the fourth smallest of the nine windows around
    the pixel and 7 pixels away from it in each direction: a straight edge crosses three
    to five of them. Reads 3 % low in white noise. Noise coarser than 7 pixels stays
    out, and so does the share of correlated noise that looks like a plane: compare maps
    with maps. Near the border windows reach over pixels that repeat the border's.

    Raises:
      ValueError: images smaller than 21 pixels.
    """
    if min(image_hu.shape[-2:]) < 3 * _MAP_SIZE:
        raise ValueError(
            f"a noise map needs at least {3 * _MAP_SIZE} pixels each way, got "
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
    """{region: noise standard deviation, HU}, NaN where a region is empty.

    The median over the region of the deviation within 7 x 7 pixels (as
    `metrics.local_sd_hu`), of image - reference where there is one, so that anatomy
    cancels; else of the image, whose fine anatomy stays in.

    Args:
      image_hu: HU.
      regions: masks by name.
      reference_hu: aligned image: the truth, or the image before noise was added. For
        two independent scans of one dose divide the result by sqrt(2).
    """
    measured = image_hu if reference_hu is None else image_hu - reference_hu
    return {name: metrics.local_sd_hu(measured, mask) for name, mask in regions.items()}


def _plane_residual(image: jax.Array) -> jax.Array:
    """Variance about the plane that fits the 7 x 7 pixels around each pixel."""
    half = _MAP_SIZE // 2
    offset = np.arange(-half, half + 1, dtype=np.float32)
    flat, slope = np.ones_like(offset), offset
    # Squares of 1000 HU cost float32 some 0.2 HU^2 of the variance.
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
    """The image moved along an axis, its border repeated."""
    if not by:
        return image
    size = image.shape[axis]
    padding = [(0, 0)] * image.ndim
    padding[axis] = (max(by, 0), max(-by, 0))
    padded = jnp.pad(image, padding, mode="edge")
    return jax.lax.slice_in_dim(padded, max(-by, 0), max(-by, 0) + size, axis=axis)
