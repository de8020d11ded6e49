"""Computes periodograms of the flat patches of an image or a pair, for the fit.

The relation of a pair's images decides which noise is measured: see `scanner`.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from ipv2.calibration import flat_patches, ray_noise, spectrum_fit
from ipv2.kernels import smoothing
from ipv2.measures import noise_analysis

LEAST_PATCHES = 4
_QUANTISATION_HU2 = 1 / 12
# Largest displacement in pixels of an aligned pair.
_ALIGNED_PX = 0.5
# Share of the normal dose's noise in the difference: above _APART the scans are
# independent; below _SAME the low dose was made from the normal dose.
_SAME, _APART = 0.25, 0.75


class Channel(NamedTuple):
    """An image whose noise is c1 times the photons' and c2 times the electronics'.

    Attributes:
      noisy: `b h w` HU.
      photons_factor: (b,) c1 of each slice, relative to normal dose.
      electronics_factor: (b,) c2 of each slice.
      roundings: number of roundings to whole HU, if its values are whole.
    """

    noisy: np.ndarray
    photons_factor: np.ndarray
    electronics_factor: np.ndarray
    roundings: int = 1


def _periodograms(patches: np.ndarray, roundings: int) -> np.ndarray:
    power = noise_analysis.periodograms(jnp.asarray(patches), 1.0, taper=True)
    power = np.asarray(power, np.float64)[:, spectrum_fit.used()]
    whole = np.all(patches == np.round(patches))
    return np.maximum(power - (roundings * _QUANTISATION_HU2 if whole else 0.0), 0.0)


def _cut(image: np.ndarray, patches: flat_patches.FlatPatches) -> np.ndarray:
    half = flat_patches.SIZE // 2
    corner = patches.centre - half
    cut = [
        image[i, row : row + 2 * half, column : column + 2 * half]
        for i, (row, column) in zip(patches.index, corner, strict=True)
    ]
    return np.asarray(cut, np.float32).reshape(-1, 2 * half, 2 * half)


def patch_spectra(
    channel: Channel,
    anatomy_hu: np.ndarray,
    patches: flat_patches.FlatPatches,
    spacing: np.ndarray,
    views: int | None,
    mu_water: float,
) -> spectrum_fit.Spectra:
    """Returns periodograms of the channel's patches with the model's parts."""
    if len(patches.index) < LEAST_PATCHES:
        raise UserError(
            f"no usable flat region: {len(patches.index)} flat patches of soft tissue "
            f"in {len(anatomy_hu)} slices, at least {LEAST_PATCHES} are needed. "
            f"A patch is {flat_patches.SIZE} x {flat_patches.SIZE} pixels between -200 "
            "and 200 HU without an edge: heart, liver, muscle. Give more slices, or "
            "check that the images are HU."
        )
    photons, electronics, scale = ray_noise.ray_variances(
        anatomy_hu, spacing, patches, views=views, mu_water_per_mm=mu_water
    )
    used = spectrum_fit.used()
    first, second = (
        factor[patches.index, None]
        for factor in (channel.photons_factor, channel.electronics_factor)
    )
    return spectrum_fit.Spectra(
        _periodograms(_cut(channel.noisy, patches), channel.roundings),
        first * ray_noise.tapered(photons)[:, used],
        second * ray_noise.tapered(electronics)[:, used],
        scale,
        patches.index,
    )


def pair_spectra(
    flat: list[np.ndarray],
    spacing: np.ndarray,
    doses: tuple[np.ndarray, ...],
    views: int | None,
    mu_water: float,
) -> tuple[str, list[spectrum_fit.Spectra]]:
    """Returns the relation of a pair's images, and the spectra to fit together."""
    low, normal = flat
    first, second = (1 / doses[0], 1 / doses[1])
    patches = flat_patches.flat_patches(normal)
    relation = "unaligned"
    if len(patches.index) and _displacement_px(low, normal) < _ALIGNED_PX:
        relation = _noise_relation(low, normal, patches, bool(np.all(second > 0)))
    if relation != "unaligned":
        sign = 1 if relation == "independent" else -1
        noise = Channel(
            low - normal,
            first + sign * second,
            first**2 + sign * second**2,
            roundings=2,
        )
        # A simulation has to add the difference, so it alone is fitted, even if the
        # noise of the normal dose disagrees with it.
        return relation, [
            patch_spectra(noise, normal, patches, spacing, views, mu_water)
        ]
    own = Channel(low, first, first**2)
    place = flat_patches.flat_patches(low)
    parts = [patch_spectra(own, low, place, spacing, views, mu_water)]
    if np.all(second > 0):
        own = Channel(normal, second, second**2)
        parts.append(patch_spectra(own, normal, patches, spacing, views, mu_water))
    return relation, parts


def _displacement_px(low: np.ndarray, normal: np.ndarray) -> float:
    """Returns the root mean square displacement of edges between the images, pixels.

    It is the difference of the smoothed images at steep places divided by the slope
    there; the difference in flat tissue, which is noise, is subtracted first.
    """
    smooth = [
        np.asarray(smoothing.gaussian(jnp.asarray(image), 4.0))
        for image in (low, normal)
    ]
    row, column = np.gradient(smooth[1], axis=(-2, -1))
    slope = row**2 + column**2
    square = np.square(smooth[0] - smooth[1])
    steep = slope >= np.quantile(slope, 0.95)
    level = (slope <= np.quantile(slope, 0.7)) & (smooth[1] > -200)
    excess = square[steep].mean() - (square[level].mean() if level.any() else 0.0)
    return math.sqrt(max(excess, 0.0) / max(slope[steep].mean(), 1e-12))


def _noise_relation(
    low: np.ndarray, normal: np.ndarray, patches: flat_patches.FlatPatches, noisy: bool
) -> str:
    """Returns whether the low-dose image contains the normal-dose image's noise.

    With l and n the noise of both, -<F(l - n) F(n)*> / <|F(n)|^2> is 1 for independent
    noise and 0 for l = n + more noise.
    """
    if not noisy:
        return "independent"
    taper = noise_analysis.hann_taper((flat_patches.SIZE,) * 2)
    difference, own = (
        np.fft.fft2(np.asarray(noise_analysis.detrend(jnp.asarray(p))) * taper)
        for p in (_cut(low - normal, patches), _cut(normal, patches))
    )
    radius, _ = ray_noise.frequencies()
    read = spectrum_fit.used() & (radius > 0.15)
    shared = -np.sum((difference * own.conj()).real[:, read], axis=1)
    share = float(np.median(shared / np.sum(np.abs(own[:, read]) ** 2, axis=1)))
    if share > _APART:
        return "independent"
    return "inserted" if share < _SAME else "unaligned"
