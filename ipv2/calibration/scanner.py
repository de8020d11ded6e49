"""Measures the scan that made a user's images: photons, electronics, kernel.

`calibrate` reads normal-dose images, or a low-dose and a normal-dose image of one
patient. It returns the parameters with which `simulate_low_dose` makes noise of the
same level and texture. It compares patches (`flat_patches`, `body_patches`,
`patch_spectra`) with the spectrum that the model predicts for each of them from the
line integrals through it (`ray_noise`, `spectrum_fit`, `robust_fit`). Photons are those
of the model: thicker slices, more views or more tube current mean more photons.

A pair also gives the electronic noise. Electronics' noise grows as 1 / dose^2 and
exp(2 p), photons' noise as 1 / dose and exp(p). So two doses separate them; a single
normal-dose image does not, and the given variance is kept. If both images show the same
anatomy at the same place, only their difference is used, in all slices and all of the
body: anatomy cancels in it, and a simulation has to add exactly this difference. It
also shows the bowtie filter, by how noise rises from the centre to the edge. Its noise
is the sum of both if the scans are independent. It is low minus normal if the low dose
was made from the normal dose's raw data, as in public quarter-dose collections. The
correlation of the difference with the normal-dose image decides between the two.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from common.errors import UserError
from ipv2.calibration import scan_input, spectrum_fit
from ipv2.calibration.bowtie_fit import NONE, BowtieFit, fit_bowtie
from ipv2.calibration.pair_spectra import (
    Pair,
    difference_spectra,
    relation_of,
    some_slices,
    unaligned_spectra,
)
from ipv2.calibration.patch_spectra import flat_spectra
from ipv2.calibration.photons_error import photons_error
from ipv2.calibration.robust_fit import (
    RobustFit,
    robust_fit,
    texture_error,
    variance_hu2,
)
from ipv2.kernels import photon_noise

# Noise below this is only rounding to whole HU, or none.
_LEAST_NOISE_HU = 0.5
# No scanner's noise has a larger misfit of the radial NPS.
_NO_NOISE = 0.5
# Larger errors of the photons are stated as a factor.
_LARGE_ERROR = 0.5
# Photons^2: an electronic variance whose error exceeds this, and half its value, counts
# as unknown.
_VAGUE_VARIANCE = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The parameters of a scanner and protocol for `simulate_low_dose`, with errors.

    `photons_error` includes what may be wrong in the model, see `photons_error.py`. The
    other errors are statistical, between slices or patches, and assume that the model
    is right; `level_spread` and `texture_error` measure how far it is.

    Attributes:
      photons: photons per ray at normal dose.
      photons_error: relative standard error (of the logarithm), model errors included.
      electronic_variance: photons^2.
      electronic_error: standard error, photons^2; None if the images cannot determine
        the variance, which is then the given one.
      filter_name: the reconstruction filter that fits best.
      cutoff: cutoff of that filter.
      cutoff_error: relative standard error; None for a measured window.
      window: measured factors on the filter; () if a named filter fits.
      views: views of the simulated scan.
      mu_water_per_mm: assumed attenuation of water.
      patches: number of patches used.
      slices: number of slices with these patches.
      noise_hu: standard deviation measured in the patches, from 0.09 to 0.45 cycles per
        pixel, root mean square.
      model_hu: the model's standard deviation there.
      level_spread: relative deviation between slices of measured to modelled noise
        (standard deviations); tube current that follows the patient raises it.
      texture_error: root mean square of the relative misfit of the radial NPS, weighted
        by its power.
      relation: for a pair: 'independent', 'inserted', 'unaligned'; '' for one image.
      bowtie_mm: radius of the bowtie filter's water cylinder, see `DoseParams`; 0 if
        the images do not determine it.
      bowtie_error: relative standard error; None if they do not.
    """

    photons: float
    photons_error: float
    electronic_variance: float
    electronic_error: float | None
    filter_name: str
    cutoff: float
    cutoff_error: float | None
    window: tuple[float, ...]
    views: int | None
    mu_water_per_mm: float
    patches: int
    slices: int
    noise_hu: float
    model_hu: float
    level_spread: float
    texture_error: float
    relation: str
    bowtie_mm: float = 0.0
    bowtie_error: float | None = None

    def dose_params(
        self, dose: float, input_dose: float = 1.0
    ) -> photon_noise.DoseParams:
        """Returns the parameters of this scanner at a fraction of normal dose."""
        return photon_noise.DoseParams(
            dose=dose,
            input_dose=input_dose,
            photons=self.photons,
            electronic_variance=self.electronic_variance,
            mu_water_per_mm=self.mu_water_per_mm,
            views=self.views,
            filter_name=self.filter_name,
            cutoff=self.cutoff,
            window=self.window,
            bowtie_mm=self.bowtie_mm,
        )

    def describe(self) -> list[str]:
        """Returns lines for people: values, errors, and what is unknown."""
        error = f"+- {100 * self.photons_error:.0f} %"
        if self.photons_error > _LARGE_ERROR:
            error = f"within a factor of {math.exp(self.photons_error):.2g}"
        lines = [f"photons per ray at normal dose: {self.photons:.3g} {error}"]
        if self.electronic_error is None:
            lines.append(
                f"electronic noise: not identified, {self.electronic_variance:g} "
                "photons^2 kept (a low-dose image or a pair of doses shows it)"
            )
        else:
            lines.append(
                f"electronic noise: {self.electronic_variance:.3g} +- "
                f"{self.electronic_error:.2g} photons^2"
            )
        if self.cutoff_error is None:
            peak = max(self.window)
            lines.append(
                f"kernel: {self.filter_name}, cut-off {self.cutoff:.3f}, times "
                f"measured factors of up to {peak:.2f} (no named filter fits)"
            )
        else:
            lines.append(
                f"kernel: {self.filter_name}, cut-off {self.cutoff:.3f} +- "
                f"{100 * self.cutoff_error:.1f} %"
            )
        lines.append(
            f"noise of {self.patches} patches in {self.slices} slices: "
            f"{self.noise_hu:.1f} HU measured, {self.model_hu:.1f} HU by the model; "
            f"NPS misfit {100 * self.texture_error:.0f} %, level between slices "
            f"+- {100 * self.level_spread:.0f} %"
        )
        if self.bowtie_error is None:
            lines.append("bowtie filter: not identified, none assumed")
        else:
            lines.append(
                f"bowtie filter: for {self.bowtie_mm:.0f} mm of water +- "
                f"{100 * self.bowtie_error:.0f} %"
            )
        if self.relation:
            lines.append(f"pair: {_RELATIONS[self.relation]}")
        if self.level_spread > 0.1:
            lines.append(
                "the noise level differs between slices by more than the model "
                "explains: tube current that follows the patient, or filters that "
                "follow the signal; photons are a mean"
            )
        return lines


_RELATIONS = {
    "independent": "aligned, noise independent: the difference was used",
    "inserted": "aligned, the low dose contains the normal dose's noise: the "
    "difference was used",
    "unaligned": "not aligned, or partly correlated: each image was used alone",
}


def calibrate(
    images_hu: Any,
    spacing_mm: Any,
    *,
    dose: Any = None,
    relative_current: Any = None,
    electronic_variance: float = 10.0,
    views: int | None = None,
    mu_water_per_mm: float = 0.0192,
) -> Calibration:
    """Returns the calibration of the scan that made the images.

    Args:
      images_hu: `*b h w` images in HU of one scanner and protocol, at normal dose, some
        with soft tissue; or a pair (low, normal) of such images, of the same shape. An
        aligned pair is used whole; else of more than 24 slices, 24 evenly spaced ones.
      spacing_mm: size of the square pixels; see `simulate_low_dose`.
      dose: dose of the images as a fraction of normal dose, 1 if None; for a pair that
        of the low-dose image (normal is 1), or (low, normal), `math.inf` for no noise.
      relative_current: tube current of each slice over the series' mean, `*b`, which
        multiplies the dose; for a pair also (low, normal). 1 if None.
      electronic_variance: photons^2, assumed if the images cannot determine it.
      views: views of the scan that will be simulated; see `DoseParams`.
      mu_water_per_mm: attenuation of water.

    Raises:
      UserError: The input is not HU or does not fit together, a pair has no dose, or
        there is no flat soft tissue with noise.
    """
    images = images_hu if isinstance(images_hu, tuple) else (images_hu,)
    flat, spacing, doses = scan_input.checked(
        images, spacing_mm, dose, relative_current
    )
    model = _Model(views, mu_water_per_mm, electronic_variance)
    if len(flat) == 2:
        pair = Pair(flat[0], flat[1], spacing, (doses[0], doses[1]))
        return _of_pair(pair, model)
    some = some_slices(len(spacing))
    image = np.asarray(flat[0][some], np.float32)
    spectra = flat_spectra(image, doses[0][some], spacing[some], *model.geometry)
    return _calibration(_fitted(spectra, model, ""), model, "", NONE)


class _Model(NamedTuple):
    """What a calibration takes as given."""

    views: int | None
    mu_water_per_mm: float
    electronic_variance: float

    @property
    def geometry(self) -> tuple[int | None, float]:
        """Views and water, as the spectra need them."""
        return self.views, self.mu_water_per_mm


def _of_pair(pair: Pair, model: _Model) -> "Calibration":
    """Returns the calibration of a pair, with the bowtie filter if it is aligned."""
    relation = relation_of(pair)
    if relation == "unaligned":
        spectra = unaligned_spectra(pair, *model.geometry)
        return _calibration(_fitted(spectra, model, relation), model, relation, NONE)
    spectra = difference_spectra(pair, relation, *model.geometry)
    found = _fitted(spectra, model, relation)
    bowtie = fit_bowtie(pair, relation, found.fit, *model.geometry)
    if bowtie.radius_mm:
        spectra = difference_spectra(pair, relation, *model.geometry, bowtie.radius_mm)
        found = _fitted(spectra, model, relation)
    return _calibration(found, model, relation, bowtie)


def _fitted(spectra: spectrum_fit.Spectra, model: _Model, relation: str) -> RobustFit:
    """Fits photons, kernel and, to the doses of a pair, electronic noise."""
    _require_noise(spectra)
    # Anatomy cancels in a difference.
    texture = relation in ("", "unaligned")
    given = model.electronic_variance
    if not relation:
        return robust_fit(spectra, given, texture=texture)
    found = robust_fit(spectra, None, texture=texture)
    least = max(found.fit.electronic_variance / 2, _VAGUE_VARIANCE)
    if float(found.fit.errors[1]) > least:
        return robust_fit(spectra, given, texture=texture)
    return found


def _require_noise(spectra: spectrum_fit.Spectra) -> None:
    deviation = math.sqrt(float(np.median(variance_hu2(spectra.power))))
    if deviation < _LEAST_NOISE_HU:
        raise UserError(
            f"the patches hold noise of {deviation:.2f} HU: too little for a "
            "calibration. Give the scanner's images, neither denoised nor averaged."
        )


def _calibration(
    found: RobustFit, model: _Model, relation: str, bowtie: BowtieFit
) -> Calibration:
    """Returns the fit's numbers, with the level scaled so that variances agree.

    The likelihood gives every frequency and direction the same weight. If the model is
    only nearly right, its level is not that of the variance.
    """
    fitted, spectra = found.fit, found.spectra
    noise = spectra.power - fitted.anatomy
    ratio = found.level
    level = float(np.mean(ratio))
    expected = level * fitted.noise
    groups = np.unique(spectra.group)
    by_group = [np.median(ratio[spectra.group == group]) for group in groups]
    level_spread = float(np.std(np.log(np.maximum(by_group, 1e-6)))) / 2
    misfit = texture_error(expected, noise)
    if misfit > _NO_NOISE:
        raise UserError(
            f"no usable flat region: the spectrum of {spectra.count.sum()} patches is "
            f"{100 * misfit:.0f} % off that of any scanner's noise. They hold "
            "edges or a pattern; give slices with heart, liver or muscle."
        )
    window = fitted.family.window(fitted.shape)
    is_fitted = found.electronic_variance is None
    scale = 1 / level if is_fitted else 1.0
    return Calibration(
        photons=math.exp(found.log_photons),
        photons_error=photons_error(found, level_spread, bowtie.photons_error),
        electronic_variance=fitted.electronic_variance * scale,
        electronic_error=float(fitted.errors[1]) * scale if is_fitted else None,
        filter_name=fitted.family.filter_name,
        cutoff=fitted.family.cutoff(fitted.shape),
        cutoff_error=None if window else float(fitted.errors[2]),
        window=window,
        views=model.views,
        mu_water_per_mm=model.mu_water_per_mm,
        patches=int(spectra.count.sum()),
        slices=len(groups),
        noise_hu=math.sqrt(max(float(np.mean(variance_hu2(noise))), 0.0)),
        model_hu=math.sqrt(float(np.mean(variance_hu2(expected)))),
        level_spread=level_spread,
        texture_error=misfit,
        relation=relation,
        bowtie_mm=bowtie.radius_mm,
        bowtie_error=bowtie.error if bowtie.radius_mm else None,
    )
