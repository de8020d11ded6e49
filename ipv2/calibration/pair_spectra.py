"""Computes the spectra of a pair of images; the pair's relation decides which.

If both images show the same anatomy at the same place, anatomy cancels in their
difference, and all patches of the body in all slices are used. Otherwise each image is
used alone, with its flat patches.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from ipv2.calibration import flat_patches, ray_noise, spectrum_fit
from ipv2.calibration.body_patches import Limits, body_patches
from ipv2.calibration.patch_spectra import Channel, cut, flat_spectra, patch_spectra
from ipv2.kernels import smoothing
from ipv2.measures import noise_analysis

# Slices of which flat patches are used; an aligned pair uses all.
MOST_SLICES = 24
# Largest displacement in pixels of an aligned pair.
_ALIGNED_PX = 0.5
# Share of the normal dose's noise in the difference: above _APART the scans are
# independent; below _SAME the low dose was made from the normal dose.
_SAME, _APART = 0.25, 0.75
# About so many patches of one slice make a row of the fit: their mean.
_POOL = 16
# A patch is left out if its noise over the model's is this many (robust) deviations off
# the slice's.
_OUTLYING, _LEAST_SPREAD = 4.0, 0.1


class Pair(NamedTuple):
    """A low-dose and a normal-dose image of the same shape.

    Attributes:
      low: `b h w` HU.
      normal: `b h w` HU.
      spacing: (b,) mm.
      doses: of each image the (b,) doses of the slices, with their tube current.
    """

    low: np.ndarray
    normal: np.ndarray
    spacing: np.ndarray
    doses: tuple[np.ndarray, np.ndarray]

    def take(self, index: np.ndarray) -> "Pair":
        """Returns some of the slices, in float32."""
        return Pair(
            np.asarray(self.low[index], np.float32),
            np.asarray(self.normal[index], np.float32),
            self.spacing[index],
            (self.doses[0][index], self.doses[1][index]),
        )


def some_slices(count: int) -> np.ndarray:
    """Returns the indices of at most `MOST_SLICES` evenly spaced slices."""
    chosen = np.linspace(0, count - 1, MOST_SLICES).round().astype(int)
    return np.unique(chosen)


def relation_of(pair: Pair) -> str:
    """Returns how the noise of a pair's images is related.

    Returns:
      'independent', 'inserted' (the low-dose image contains the noise of the other), or
      'unaligned', which stands for any other relation too.
    """
    few = pair.take(some_slices(len(pair.spacing)))
    patches = flat_patches.flat_patches(few.normal)
    if not len(patches.index) or _displacement_px(few.low, few.normal) >= _ALIGNED_PX:
        return "unaligned"
    return _noise_relation(few, patches)


def unaligned_spectra(
    pair: Pair, views: int | None, mu_water: float
) -> spectrum_fit.Spectra:
    """Returns the spectra of each image's flat patches, to fit together."""
    few = pair.take(some_slices(len(pair.spacing)))
    return joined(
        [
            flat_spectra(image, dose, few.spacing, views, mu_water)
            for image, dose in zip((few.low, few.normal), few.doses, strict=True)
            if np.all(1 / dose > 0)
        ]
    )


def difference_spectra(
    pair: Pair,
    relation: str,
    views: int | None,
    mu_water: float,
    bowtie_mm: float = 0.0,
) -> spectrum_fit.Spectra:
    """Returns the spectra of the difference of an aligned pair, in all of the body.

    A row is the mean of patches of one slice that the model expects to be equally
    noisy. The model is linear in its parts, so their means describe it.

    Raises:
      UserError: there are too few patches.
    """
    rows = []
    for index, (one, patches) in enumerate(slices_of(pair)):
        if not len(patches.index):
            continue
        spectra = patch_spectra(
            difference(one, relation),
            one.normal,
            patches,
            one.spacing,
            views,
            mu_water,
            bowtie_mm,
        )
        ordinary = spectra.take(ordinary_levels(spectra))
        rows.append(_pooled(ordinary, index))
    if sum(row.count.sum() for row in rows) < 2 * _POOL:
        raise UserError(
            f"no usable region: {len(pair.spacing)} slices of the pair hold fewer than "
            f"{2 * _POOL} patches of the body, {flat_patches.SIZE} pixels wide, that "
            "are not clipped. Give more slices, or check that the images are HU."
        )
    return joined(rows)


def slices_of(pair: Pair) -> Iterator[tuple[Pair, flat_patches.FlatPatches]]:
    """Yields each slice of an aligned pair with the patches of its body."""
    limits = Limits(float(np.min(pair.low)), float(np.min(pair.normal)))
    for index in range(len(pair.spacing)):
        one = pair.take(np.array([index]))
        yield one, body_patches(one.low[0], one.normal[0], limits)


def difference(pair: Pair, relation: str) -> Channel:
    """Returns low minus normal: the noise that a simulation has to add."""
    first, second = (1 / dose for dose in pair.doses)
    sign = 1 if relation == "independent" else -1
    return Channel(
        pair.low - pair.normal,
        first + sign * second,
        first**2 + sign * second**2,
        roundings=2,
    )


def ordinary_levels(spectra: spectrum_fit.Spectra) -> np.ndarray:
    """Selects the patches of a slice whose level over the model's is usual.

    Metal, and edges that the images show at two places, are not.
    """
    ratio = spectra.power.sum(axis=1) / spectra.photons.sum(axis=1)
    level = np.log(np.maximum(ratio, 1e-30))
    off = np.abs(level - np.median(level))
    spread = max(1.4826 * float(np.median(off)), _LEAST_SPREAD)
    return off < _OUTLYING * spread


def joined(parts: list[spectrum_fit.Spectra]) -> spectrum_fit.Spectra:
    """Returns the patches of all parts."""
    stacks = (np.concatenate(part) for part in zip(*parts, strict=True))
    return spectrum_fit.Spectra(*stacks)


def _pooled(spectra: spectrum_fit.Spectra, group: int) -> spectrum_fit.Spectra:
    """Returns means over patches of similar expected noise, as one group."""
    order = np.argsort(spectra.photons.sum(axis=1), kind="stable")
    pools = np.array_split(order, max(1, len(order) // _POOL))

    def mean(part: np.ndarray) -> np.ndarray:
        return np.stack([part[pool].mean(axis=0) for pool in pools])

    return spectrum_fit.Spectra(
        power=mean(spectra.power),
        photons=mean(spectra.photons),
        electronics=mean(spectra.electronics),
        scale=mean(spectra.scale),
        group=np.full(len(pools), group),
        count=np.array([len(pool) for pool in pools]),
    )


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


def _noise_relation(pair: Pair, patches: flat_patches.FlatPatches) -> str:
    """Returns whether the low-dose image contains the normal-dose image's noise.

    With l and n the noise of both, -<F(l - n) F(n)*> is <|F(n)|^2> for independent
    noise, and 0 for l = n + more noise. The power of n is known in two ways: measured,
    with anatomy, and from the difference by the doses, with the electronics' noise. The
    smaller one counts.
    """
    low, normal = (1 / dose.mean() for dose in pair.doses)
    if not normal:
        return "independent"
    taper = noise_analysis.hann_taper((flat_patches.SIZE,) * 2)
    radius, _ = ray_noise.frequencies()
    read = spectrum_fit.used() & (radius > 0.15)
    apart, own = (
        np.fft.fft2(np.asarray(noise_analysis.detrend(jnp.asarray(p))) * taper)[:, read]
        for p in (cut(pair.low - pair.normal, patches), cut(pair.normal, patches))
    )
    shared = -np.sum((apart * own.conj()).real, axis=1)
    by_dose = np.sum(np.abs(apart) ** 2, axis=1) * normal / (low + normal)
    power = np.minimum(np.sum(np.abs(own) ** 2, axis=1), by_dose)
    share = float(np.median(shared / power))
    if share > _APART:
        return "independent"
    return "inserted" if share < _SAME else "unaligned"
