"""Fits a scanner to flat patches: leaves out outliers and selects the filter."""

from typing import NamedTuple

import numpy as np

from common.errors import UserError
from ipv2.calibration import flat_patches, ray_noise, spectrum_fit
from ipv2.calibration.patch_spectra import LEAST_PATCHES

# A measured window replaces a named filter if its radial NPS error is smaller by this.
_WORSE = 0.03
# Named filters other than hann must be better than hann by this much in the mean of
# log S + P / S.
_BETTER = 0.0005
# A patch is left out if its level is this many (robust) deviations off, or its anatomy
# exceeds this share of the noise.
_OUTLYING, _LEAST_SPREAD, _MOST_ANATOMY = 3.0, 0.05, 0.5
_ROUNDS = 2
# A patch holds anatomy if the estimate is this many standard errors above zero.
_EVIDENT = 2.0
# Counts with a larger relative variance are not used: 3 or 4 photons.
_STARVED = 0.3


class RobustFit(NamedTuple):
    """The best fit and what it was fitted to.

    Attributes:
      fit: the parameters.
      spectra: the patches without those that hold anatomy or artefacts.
      textured: (k,) patches whose anatomy was fitted.
      electronic_variance: the given value; None if it was fitted.
    """

    fit: spectrum_fit.Fit
    spectra: spectrum_fit.Spectra
    textured: np.ndarray
    electronic_variance: float | None

    @property
    def level(self) -> np.ndarray:
        """(k,) measured over modelled noise of each patch."""
        noise = self.spectra.power - self.fit.anatomy
        return noise.sum(axis=1) / self.fit.noise.sum(axis=1)

    @property
    def log_photons(self) -> float:
        """Logarithm of N0, scaled so that measured and modelled variances agree."""
        return -self.fit.log_alpha - float(np.log(np.mean(self.level)))

    def again(
        self, family: spectrum_fit.Family, anatomy_power: float = 3.0
    ) -> "RobustFit":
        """Returns the fit of another family, or of other anatomy, to the same data."""
        fitted = spectrum_fit.fit(
            self.spectra,
            family,
            electronic_variance=self.electronic_variance,
            textured=self.textured,
            anatomy_power=anatomy_power,
        )
        return self._replace(fit=fitted)


def robust_fit(
    spectra: spectrum_fit.Spectra, electronic_variance: float | None, *, texture: bool
) -> RobustFit:
    """Returns the best fit without patches that hold anatomy or artefacts."""
    fitted = spectrum_fit.fit(
        spectra,
        spectrum_fit.named_family("hann"),
        electronic_variance=electronic_variance,
        textured=np.zeros(len(spectra.power), bool),
    )
    corrected, textured = spectra, np.zeros(len(spectra.power), bool)
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
    return RobustFit(fitted, corrected, textured, electronic_variance)


def _ordinary(fitted: spectrum_fit.Fit, spectra: spectrum_fit.Spectra) -> np.ndarray:
    """Selects patches of usual level, with little anatomy and enough photons."""
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
    """Returns the named filter that fits best, or a measured window if none fits."""

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
    """Returns the variance in the used frequencies, HU^2: both of each pair f, -f."""
    return 2 * power.sum(axis=1) / flat_patches.SIZE**2


def texture_error(model: np.ndarray, measured: np.ndarray) -> float:
    """Returns the misfit of the radial NPS, in rings one frequency step wide.

    Rings are weighted by power. Both arguments are (k, f); levels do not matter.
    """
    radius = ray_noise.frequencies()[0][spectrum_fit.used()]
    ring = np.floor(radius * flat_patches.SIZE + 0.5).astype(int)
    # Relative to each patch's level, so that the noisiest patches do not dominate.
    level = model.mean(axis=1, keepdims=True)
    expected, total = (
        np.bincount(ring, weights=(values / level).mean(axis=0))
        for values in (model, measured)
    )
    total *= expected.sum() / total.sum()
    # A hundredth of the strongest ring is added, so rings without power do not count.
    misfit = (total - expected) / (expected + 0.01 * expected.max())
    return float(np.sqrt(np.average(misfit**2, weights=expected)))
