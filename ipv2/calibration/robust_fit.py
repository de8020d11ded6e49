"""The scanner that flat patches agree on: outliers left out, the filter chosen."""

import numpy as np

from common.errors import UserError
from ipv2.calibration import flat_patches, ray_noise, spectrum_fit
from ipv2.calibration.patch_spectra import LEAST_PATCHES

# A measured window replaces a named filter whose radial NPS is off by this much more.
_WORSE = 0.03
# Named filters other than hann must be better than it by this much in the mean of
# log S + P / S.
_BETTER = 0.0005
# Patches that are left out: level this many (robust) deviations off, anatomy above
# this share of the noise.
_OUTLYING, _LEAST_SPREAD, _MOST_ANATOMY = 3.0, 0.05, 0.5
_ROUNDS = 2
# Standard errors above zero from which a patch is said to hold anatomy.
_EVIDENT = 2.0
# Relative variance of a ray's counts above which they say little: 3 or 4 photons.
_STARVED = 0.3


def robust_fit(
    spectra: spectrum_fit.Spectra, electronic_variance: float | None, *, texture: bool
) -> tuple[spectrum_fit.Fit, spectrum_fit.Spectra]:
    """Best fit after patches that hold anatomy, or an artefact, are left out."""
    fitted = spectrum_fit.fit(
        spectra,
        spectrum_fit.named_family("hann"),
        electronic_variance=electronic_variance,
        textured=np.zeros(len(spectra.power), bool),
    )
    corrected = spectra
    for _ in range(_ROUNDS):
        corrected = spectrum_fit.with_logarithm(
            spectra, fitted.log_alpha, fitted.electronic_variance
        )
        textured = (fitted.evidence > _EVIDENT) & texture
        fitted = _best_fit(corrected, electronic_variance, textured)
        keep = _ordinary(fitted, corrected)
        if keep.sum() < LEAST_PATCHES:
            raise UserError(
                f"no usable flat region: {keep.sum()} of {len(keep)} patches hold "
                "noise rather than edges, texture or starved rays. Give slices with "
                "heart, liver or muscle."
            )
        spectra, corrected = spectra.take(keep), corrected.take(keep)
        textured = (fitted.evidence > _EVIDENT)[keep] & texture
        fitted = _best_fit(corrected, electronic_variance, textured)
    return fitted, corrected


def _ordinary(fitted: spectrum_fit.Fit, spectra: spectrum_fit.Spectra) -> np.ndarray:
    """Patches at the level of the others, without much anatomy, that rays reach."""
    ratio = spectra.power.sum(axis=1) / (fitted.noise + fitted.anatomy).sum(axis=1)
    level = np.log(np.maximum(ratio, 1e-6))
    off = np.abs(level - np.median(level))
    spread = max(1.4826 * float(np.median(off)), _LEAST_SPREAD)
    clean = fitted.anatomy.sum(axis=1) < _MOST_ANATOMY * fitted.noise.sum(axis=1)
    rays = spectrum_fit.ray_variance(
        spectra, fitted.log_alpha, fitted.electronic_variance
    )
    return (off < _OUTLYING * spread) & clean & (rays.mean(axis=1) < _STARVED)


def _best_fit(
    spectra: spectrum_fit.Spectra,
    electronic_variance: float | None,
    textured: np.ndarray,
) -> spectrum_fit.Fit:
    """The named filter that fits best, or a measured window where none fits."""

    def fit(family: spectrum_fit.Family) -> spectrum_fit.Fit:
        return spectrum_fit.fit(
            spectra,
            family,
            electronic_variance=electronic_variance,
            textured=textured,
        )

    fits = [fit(spectrum_fit.named_family(name)) for name in spectrum_fit.NAMED]
    named = min(fits, key=lambda f: f.loss + _BETTER * (f.family.filter_name != "hann"))
    free = fit(spectrum_fit.window_family(named))
    off = [texture_error(f.noise, spectra.power - f.anatomy) for f in (named, free)]
    return free if off[1] < off[0] - _WORSE else named


def variance_hu2(power: np.ndarray) -> np.ndarray:
    """Variance in the frequencies that are read, HU^2: both of each pair f, -f."""
    return 2 * power.sum(axis=1) / flat_patches.SIZE**2


def texture_error(model: np.ndarray, measured: np.ndarray) -> float:
    """Misfit of the radial NPS, rings one frequency step wide, weighted by power.

    Both (k, f); levels do not matter.
    """
    radius = ray_noise.frequencies()[0][spectrum_fit.used()]
    ring = np.floor(radius * flat_patches.SIZE + 0.5).astype(int)
    # Relative to each patch's level, or the noisiest would decide.
    level = model.mean(axis=1, keepdims=True)
    expected, total = (
        np.bincount(ring, weights=(values / level).mean(axis=0))
        for values in (model, measured)
    )
    total *= expected.sum() / total.sum()
    # Rings without power are no texture: a hundredth of the strongest is added to all.
    misfit = (total - expected) / (expected + 0.01 * expected.max())
    return float(np.sqrt(np.average(misfit**2, weights=expected)))
