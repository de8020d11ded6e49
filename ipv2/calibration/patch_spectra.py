"""Computes periodograms of patches and the model's parts for them, for the fit."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from ipv2.calibration import flat_patches, ray_noise, spectrum_fit
from ipv2.measures import noise_analysis

LEAST_PATCHES = 4
_QUANTISATION_HU2 = 1 / 12
# Periodograms are computed for multiples of so many patches: each number compiles once.
_BLOCK = 64


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
    filled = np.pad(patches, ((0, -len(patches) % _BLOCK), (0, 0), (0, 0)))
    power = noise_analysis.periodograms(jnp.asarray(filled), 1.0, taper=True)
    power = np.asarray(power, np.float64)[: len(patches), spectrum_fit.used()]
    whole = np.all(patches == np.round(patches))
    return np.maximum(power - (roundings * _QUANTISATION_HU2 if whole else 0.0), 0.0)


def cut(image: np.ndarray, patches: flat_patches.FlatPatches) -> np.ndarray:
    """Returns the patches of other images, (k, 32, 32)."""
    half = flat_patches.SIZE // 2
    corner = patches.centre - half
    found = [
        image[i, row : row + 2 * half, column : column + 2 * half]
        for i, (row, column) in zip(patches.index, corner, strict=True)
    ]
    return np.asarray(found, np.float32).reshape(-1, 2 * half, 2 * half)


def flat_spectra(
    image: np.ndarray,
    dose: np.ndarray,
    spacing: np.ndarray,
    views: int | None,
    mu_water: float,
) -> spectrum_fit.Spectra:
    """Returns the spectra of an image's flat patches.

    Raises:
      UserError: there are too few patches.
    """
    patches = flat_patches.flat_patches(image)
    if len(patches.index) < LEAST_PATCHES:
        raise UserError(
            f"no usable flat region: {len(patches.index)} flat patches of soft tissue "
            f"in {len(image)} slices, at least {LEAST_PATCHES} are needed. "
            f"A patch is {flat_patches.SIZE} x {flat_patches.SIZE} pixels between -200 "
            "and 200 HU without an edge: heart, liver, muscle. Give more slices, or "
            "check that the images are HU."
        )
    own = Channel(image, 1 / dose, 1 / dose**2)
    return patch_spectra(own, image, patches, spacing, views, mu_water)


def patch_spectra(
    channel: Channel,
    anatomy_hu: np.ndarray,
    patches: flat_patches.FlatPatches,
    spacing: np.ndarray,
    views: int | None,
    mu_water: float,
    bowtie_mm: float = 0.0,
) -> spectrum_fit.Spectra:
    """Returns periodograms of the channel's patches with the model's parts."""
    photons, electronics, scale = ray_noise.ray_variances(
        anatomy_hu,
        spacing,
        patches,
        views=views,
        mu_water_per_mm=mu_water,
        bowtie_mm=bowtie_mm,
    )
    used = spectrum_fit.used()
    first, second = (
        factor[patches.index, None]
        for factor in (channel.photons_factor, channel.electronics_factor)
    )
    return spectrum_fit.Spectra(
        _periodograms(cut(channel.noisy, patches), channel.roundings),
        first * ray_noise.tapered(photons)[:, used],
        second * ray_noise.tapered(electronics)[:, used],
        scale,
        patches.index,
        np.ones(len(patches.index), int),
    )
