"""Predicts the low-dose model's noise power spectrum at a place of an image.

Filtered backprojection puts the noise of view theta at the spatial frequencies along
that view's direction: with V the variance of a ray's line integral, H the filter, n
views, f in cycles a pixel and pixels of size D mm, at the point r

    S(f, theta; r) = (1000 / (mu_water D))^2 (pi / n) V(theta, s(r, theta)) |H(f)|^2 / f
    V = exp(p) / N0 + sigma_e^2 exp(2 p) / N0^2                   [HU^2 pixel^2]

s(r, theta) = x cos(theta) - y sin(theta) is the ray through r, and p is its line
integral, computed from the image, plus what a bowtie filter absorbs. Integrated over
the frequencies, S is the variance of Kak and Slaney (1988, section 5.2); S also
describes the direction of the noise.

A patch is measured with a Hann taper: its expected periodogram is S convolved with the
taper's spectrum.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ipv2.calibration.flat_patches import SIZE, FlatPatches
from ipv2.kernels import photon_noise, projection, smoothing
from ipv2.kernels.bowtie import bowtie_transmission
from ipv2.kernels.reconstruction_filter import filter_response

# Line integrals use a slightly smoothed image, because noise in them would raise the
# mean of exp(p).
_SMOOTHING = 2.0
# Padded length for the filter's response: frequencies are 1/4096 apart.
_PADDED = 4096


def tapered(spectrum: np.ndarray) -> np.ndarray:
    """Returns the expected periodogram of a tapered patch from a spectrum.

    Both are `... 32 32`.
    """
    for axis in (-2, -1):
        spectrum = (
            np.roll(spectrum, 1, axis) + 4 * spectrum + np.roll(spectrum, -1, axis)
        ) / 6
    return spectrum


@functools.cache
def frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Returns (32, 32) radial frequency in cycles per pixel, and view angle in rad."""
    row = np.fft.fftfreq(SIZE)[:, None]
    column = np.fft.fftfreq(SIZE)[None, :]
    return np.hypot(row, column), np.arctan2(-row, column) % np.pi


def filter_power(
    filter_name: str, cutoff: float, window: tuple[float, ...] = ()
) -> np.ndarray:
    """Returns (32, 32) |H(f)|^2 / f, 0 at f = 0."""
    radius, _ = frequencies()
    response = filter_response(filter_name, _PADDED, cutoff=cutoff, window=window)
    at = np.arange(response.size) / _PADDED
    # 0 beyond the detector's highest frequency.
    height = np.interp(radius, at, response, right=0.0)
    return height**2 / np.where(radius > 0, radius, 1.0)


@jax.jit
def _ray_tables(
    geometry: projection.Geometry,
    mu: Float[Array, "b h w"],
    spacing: Float[Array, " b"],
    bowtie_mm: Array,
    mu_water: Array,
) -> tuple[Array, Array]:
    """Returns exp(p) and exp(2 p), averaged over a taper's width on the detector.

    p includes what the bowtie filter absorbs.
    """
    line = projection.project(geometry, mu) * spacing[:, None, None]
    line = jnp.maximum(line, 0.0)
    ray = jnp.arange(geometry.detectors) - geometry.detectors // 2
    passed = bowtie_transmission(ray[None] * spacing[:, None], bowtie_mm, mu_water)
    line = line - jnp.log(passed)[:, None]
    position = np.arange(SIZE) - SIZE / 2 + 0.5
    power = (0.5 - 0.5 * np.cos(2 * np.pi * (position / SIZE + 0.5))) ** 2
    spread = float(np.sqrt(np.sum(power * position**2) / np.sum(power)))
    powers = jnp.stack([jnp.exp(line), jnp.exp(2 * line)])
    weight = np.exp(-0.5 * (np.arange(-16, 17) / spread) ** 2)
    kernel = jnp.asarray(weight / weight.sum(), jnp.float32)
    padded = jnp.pad(powers, ((0, 0), (0, 0), (0, 0), (16, 16)), mode="edge")
    flat = padded.reshape(-1, 1, padded.shape[-1])
    mean = jax.lax.conv_general_dilated(flat, kernel[None, None], (1,), "VALID")
    mean = mean.reshape(powers.shape)
    return mean[0], mean[1]


def ray_variances(
    image_hu: np.ndarray,
    spacing_mm: np.ndarray,
    patches: FlatPatches,
    *,
    views: int | None,
    mu_water_per_mm: float,
    bowtie_mm: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the spectra for one photon per ray and for one photon^2 of electronics.

    Args:
      image_hu: `b h w`, the slices of the patches.
      spacing_mm: (b,) size of the square pixels.
      patches: the patches.
      views: views of the simulated scan; None for the longer side.
      mu_water_per_mm: attenuation of water.
      bowtie_mm: bowtie filter, see `DoseParams`.

    Returns:
      The parts of photons and electronics, (k, 32, 32) each, in HU^2 pixel^2, without
      the factor |H(f)|^2 / f and before the taper; and (k,) their factor from a ray's
      variance to these units.
    """
    geometry = photon_noise.scan_geometry(image_hu.shape[-2:], views)
    angle = projection.uniform_angles(geometry.views)
    smooth = smoothing.gaussian(jnp.asarray(image_hu, jnp.float32), _SMOOTHING)
    mu = photon_noise.hu_to_attenuation(smooth, mu_water_per_mm)
    tables = [
        np.asarray(table)
        for table in _ray_tables(
            geometry,
            mu,
            jnp.asarray(spacing_mm, jnp.float32),
            jnp.float32(bowtie_mm),
            jnp.float32(mu_water_per_mm),
        )
    ]
    weight = _directions(angle)
    h, w = image_hu.shape[-2:]
    y, x = (patches.centre - 0.5 - (h // 2, w // 2)).T
    s = x[:, None] * np.cos(angle) - y[:, None] * np.sin(angle)
    s = s + geometry.detectors // 2
    low = np.clip(np.floor(s).astype(int), 0, geometry.detectors - 2)
    part = np.clip(s - low, 0, 1)
    view = np.arange(angle.size)
    index = patches.index[:, None]
    scale = (1000 / (mu_water_per_mm * spacing_mm[patches.index])) ** 2
    scale = scale[:, None] * (math.pi / geometry.views)

    def along(table: np.ndarray) -> np.ndarray:
        below = table[index, view, low]
        return (1 - part) * below + part * table[index, view, low + 1]

    def spectrum(rays: np.ndarray) -> np.ndarray:
        return (scale * (rays @ weight)).reshape(-1, SIZE, SIZE)

    first, second = (along(table) for table in tables)
    return spectrum(first), spectrum(second), scale[:, 0]


def _directions(angle: np.ndarray) -> np.ndarray:
    """Returns (n, 32 * 32) the share of each view in each frequency.

    The views within one frequency step contribute.
    """
    radius, direction = frequencies()
    width = 1 / np.maximum(radius * SIZE, 1.0)
    distance = np.abs(angle[:, None] - direction.reshape(-1)[None, :])
    distance = np.minimum(distance, np.pi - distance)
    weight = np.maximum(
        0.0, 1 - distance / np.maximum(width.reshape(-1), np.pi / angle.size)
    )
    return weight / weight.sum(axis=0)
