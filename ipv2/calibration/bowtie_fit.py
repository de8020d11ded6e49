"""Finds the bowtie filter of an aligned pair from the noise level across the body.

A bowtie filter lets fewer photons through at the sides, so noise rises from the centre
to the edge by more than the body explains. For a list of radii (see
`kernels.bowtie.bowtie_transmission`) the model predicts the level of each patch; the
radius with the least scatter of measured over predicted levels within slices wins. Its
gain over no filter has to be significant between slices, or there is no result.
"""

import math
from typing import NamedTuple

import numpy as np

from ipv2.calibration.flat_patches import FlatPatches
from ipv2.calibration.pair_spectra import Pair, difference, slices_of, some_slices
from ipv2.calibration.patch_spectra import patch_spectra
from ipv2.calibration.spectrum_fit import Fit

# From a filter that matters only near the centre to one that is flat over a body.
_RADII_MM = np.geomspace(40.0, 1500.0, 16)
_LEAST_SLICES, _LEAST_PATCHES, _MOST_PATCHES = 4, 16, 96
# The gain of a slice over its standard error between slices: proof, and a hint.
_SIGNIFICANT, _HINT = 3.0, 1.0
# Log levels further off than this hold more than noise. A strong filter makes 1.
_MOST_OFF = 2.0


class BowtieFit(NamedTuple):
    """The radius that fits best.

    Attributes:
      radius_mm: 0 if no filter is identified.
      error: relative standard error between slices; 0 for radius 0.
      photons_error: relative error of the photons by that of the radius; for radius 0
        their change by the filter that the images hint at.
    """

    radius_mm: float
    error: float
    photons_error: float


NONE = BowtieFit(0.0, 0.0, 0.0)


def fit_bowtie(
    pair: Pair, relation: str, fitted: Fit, views: int | None, mu_water: float
) -> BowtieFit:
    """Returns the bowtie filter of an aligned pair, with radius 0 if none is proved.

    Args:
      pair: the pair.
      relation: of its noise, 'independent' or 'inserted'.
      fitted: photons, electronic noise and kernel without a filter.
      views: views of the simulated scan.
      mu_water: attenuation of water per mm.
    """
    few = pair.take(some_slices(len(pair.spacing)))
    found = [
        _scatter(one, patches, relation, fitted, views, mu_water)
        for one, patches in slices_of(few)
        if len(patches.index) >= _LEAST_PATCHES
    ]
    count = len(found)
    if count < _LEAST_SLICES:
        return NONE
    scatter, change = (np.asarray(part) for part in zip(*found, strict=True))
    mean = scatter.mean(axis=0)
    gain = scatter[:, 0] - scatter[:, 1 + int(np.argmin(mean[1:]))]
    significance = gain.mean() / (np.std(gain, ddof=1) / math.sqrt(count) + 1e-12)
    if significance < _HINT:
        return NONE

    def photons(radius_mm: np.ndarray | float) -> np.ndarray:
        return np.interp(np.log(radius_mm), np.log(_RADII_MM), change.mean(axis=0)[1:])

    radius = _lowest(mean)
    if significance < _SIGNIFICANT:
        return BowtieFit(0.0, 0.0, float(abs(photons(radius))))
    # Each slice left out in turn (jackknife).
    each = np.array([_lowest(mean - row / count) for row in scatter])
    factor = math.sqrt(count - 1)
    return BowtieFit(
        radius,
        float(np.std(np.log(each))) * factor,
        float(np.std(photons(each))) * factor,
    )


def _lowest(scatter: np.ndarray) -> float:
    """Returns the radius at the lowest point of a parabola through the best three."""
    best = 1 + int(np.clip(np.argmin(scatter[1:]), 1, len(_RADII_MM) - 2))
    below, middle, above = scatter[best - 1 : best + 2]
    curvature = below - 2 * middle + above
    move = 0.5 * (below - above) / curvature if curvature > 0 else 0.0
    step = np.log(_RADII_MM[1] / _RADII_MM[0])
    return float(_RADII_MM[best - 1] * np.exp(step * np.clip(move, -1, 1)))


def _scatter(
    one: Pair,
    patches: FlatPatches,
    relation: str,
    fitted: Fit,
    views: int | None,
    mu_water: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Compares no filter and each radius in a slice.

    Levels are those of the fitted kernel, so that each frequency counts by its noise.

    Returns:
      The variance of the logarithm of the level, and the change of the logarithm of the
      photons.
    """
    some = np.linspace(0, len(patches.index) - 1, _MOST_PATCHES).round().astype(int)
    few = FlatPatches(*(part[np.unique(some)] for part in patches))
    channel, alpha = difference(one, relation), math.exp(fitted.log_alpha)
    gain = fitted.family.gain(fitted.shape)

    def level(radius_mm: float) -> np.ndarray:
        spectra = patch_spectra(
            channel, one.normal, few, one.spacing, views, mu_water, radius_mm
        )
        electronics = alpha**2 * fitted.electronic_variance * spectra.electronics
        noise = (alpha * spectra.photons + electronics) * gain
        return np.log(np.maximum(spectra.power.sum(axis=1) / noise.sum(axis=1), 1e-30))

    levels = np.stack([level(radius_mm) for radius_mm in (0.0, *_RADII_MM)])
    middle = np.median(levels, axis=1, keepdims=True)
    change = middle[0] - middle[:, 0]
    levels -= middle
    # The same patches for all radii.
    usual = np.abs(levels).min(axis=0) < _MOST_OFF
    return np.var(levels[:, usual], axis=1), change
