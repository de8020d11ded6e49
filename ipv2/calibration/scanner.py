"""Measures the scan that made a user's images: photons, electronics, kernel.

`calibrate` reads normal-dose images, or a low-dose and a normal-dose image of one
patient. It returns the parameters with which `simulate_low_dose` makes noise of the
same level and texture. It compares flat patches of soft tissue (`flat_patches`,
`patch_spectra`) with the spectrum that the model predicts for each of them from the
line integrals through it (`ray_noise`, `spectrum_fit`, `robust_fit`). Photons are those
of the model: thicker slices, more views or more tube current mean more photons.

A pair also gives the electronic noise. Electronics' noise grows as 1 / dose^2 and
exp(2 p), photons' noise as 1 / dose and exp(p). So two doses separate them; a single
normal-dose image does not, and the given variance is kept. If both images show the same
anatomy at the same place, only their difference is used: anatomy cancels in it, and a
simulation has to add exactly this difference. Its noise is the sum of both if the scans
are independent. It is low minus normal if the low dose was made from the normal dose's
raw data, as in public quarter-dose collections. The correlation of the difference with
the normal-dose image decides between the two.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from common.errors import UserError
from ipv2.calibration import flat_patches, spectrum_fit
from ipv2.calibration.patch_spectra import Channel, pair_spectra, patch_spectra
from ipv2.calibration.robust_fit import robust_fit, texture_error, variance_hu2
from ipv2.kernels import photon_noise

_SLICES = 24
# Noise below this is only rounding to whole HU, or none.
_LEAST_NOISE_HU = 0.5
# No scanner's noise has a larger misfit of the radial NPS.
_NO_NOISE = 0.5
# Photons^2: an electronic variance whose error exceeds this, and half its value, counts
# as unknown.
_VAGUE_VARIANCE = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The parameters of a scanner and protocol for `simulate_low_dose`, with errors.

    Errors are relative standard errors between slices (between patches if there are
    fewer than four slices). They assume that the model is right; `level_spread` and
    `texture_error` measure how far it is.

    Attributes:
      photons: photons per ray at normal dose.
      photons_error: relative standard error, with unknown kernel.
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
        )

    def describe(self) -> list[str]:
        """Returns lines for people: values, errors, and what is unknown."""
        percent = 100 * self.photons_error
        lines = [
            f"photons per ray at normal dose: {self.photons:.3g} +- {percent:.0f} %"
        ]
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
            f"noise of {self.patches} flat patches in {self.slices} slices: "
            f"{self.noise_hu:.1f} HU measured, {self.model_hu:.1f} HU by the model; "
            f"NPS misfit {100 * self.texture_error:.0f} %, level between slices "
            f"+- {100 * self.level_spread:.0f} %"
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
        with soft tissue; or a pair (low, normal) of such images, of the same shape. Of
        more than 24 slices, 24 evenly spaced ones are used.
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
    pair = isinstance(images_hu, tuple)
    images, spacing, current = _chosen_slices(
        images_hu if pair else (images_hu,), spacing_mm, relative_current
    )
    doses = tuple(
        one * factors for one, factors in zip(_doses(dose, pair), current, strict=True)
    )
    relation, spectra = _spectra(images, spacing, doses, views, mu_water_per_mm)
    _require_noise(spectra)
    # Anatomy cancels in a difference.
    texture = relation in ("", "unaligned")
    fitted, fitted_spectra = robust_fit(
        spectra, None if pair else electronic_variance, texture=texture
    )
    q_error = float(fitted.errors[1]) if pair else None
    if q_error is not None and q_error > max(
        fitted.electronic_variance / 2, _VAGUE_VARIANCE
    ):
        fitted, fitted_spectra = robust_fit(
            spectra, electronic_variance, texture=texture
        )
        q_error = None
    return _calibration(
        fitted,
        fitted_spectra,
        q_error,
        views=views,
        mu_water_per_mm=mu_water_per_mm,
        relation=relation,
    )


def _chosen_slices(
    images_hu: tuple[Any, ...], spacing_mm: Any, relative_current: Any
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Returns evenly spaced slices of each image, their pixel sizes and currents."""
    images = [_checked(image, spacing_mm) for image in images_hu]
    if len(images) > 2 or images[0].shape != images[-1].shape:
        raise UserError(
            "a pair must be (low, normal), two images of one shape; got "
            f"{[image.shape for image in images]}."
        )
    spacing = _spacing(spacing_mm, images[0].shape[:-2])
    chosen = np.unique(np.linspace(0, len(spacing) - 1, _SLICES).round().astype(int))
    flat = [image.reshape(-1, *image.shape[-2:]) for image in images]
    images = [np.asarray(image[chosen], np.float32) for image in flat]
    current = _currents(relative_current, images_hu[0].shape[:-2], len(flat))
    return images, spacing[chosen], [factors[chosen] for factors in current]


def _currents(
    relative_current: Any, batch: tuple[int, ...], images: int
) -> list[np.ndarray]:
    """Returns the tube currents of each image's slices, flat."""
    given = relative_current
    if given is None:
        given = 1.0
    each = given if isinstance(given, tuple) else (given,) * images
    try:
        if len(each) != images:
            raise ValueError(
                f"relative_current: got {len(each)} arrays for {images} images."
            )
        return [
            np.asarray(photon_noise.slice_current(one, batch), np.float64)
            for one in each
        ]
    except ValueError as error:
        raise UserError(str(error)) from error


def _spectra(
    images: list[np.ndarray],
    spacing: np.ndarray,
    doses: tuple[np.ndarray, ...],
    views: int | None,
    mu_water: float,
) -> tuple[str, spectrum_fit.Spectra]:
    """Returns the relation of a pair, '' for one image, and the spectra to fit."""
    if len(images) == 2:
        relation, parts = pair_spectra(images, spacing, doses, views, mu_water)
        joined = (np.concatenate(part) for part in zip(*parts, strict=True))
        return relation, spectrum_fit.Spectra(*joined)
    (image,) = images
    channel = Channel(image, 1 / doses[0], 1 / doses[0] ** 2)
    patches = flat_patches.flat_patches(image)
    return "", patch_spectra(channel, image, patches, spacing, views, mu_water)


def _checked(image_hu: Any, spacing_mm: Any) -> np.ndarray:
    image = np.asarray(image_hu)
    try:
        photon_noise.check_image(image)
        photon_noise.slice_spacing(spacing_mm, image.shape[:-2])
    except ValueError as error:
        raise UserError(str(error)) from error
    if min(image.shape[-2:]) < 2 * flat_patches.SIZE:
        raise UserError(
            f"image_hu: got {image.shape[-2:]} pixels, accepted: at least twice the "
            f"{flat_patches.SIZE} x {flat_patches.SIZE} pixels of a patch."
        )
    return image


def _spacing(spacing_mm: Any, batch: tuple[int, ...]) -> np.ndarray:
    return np.asarray(photon_noise.slice_spacing(spacing_mm, batch), np.float64)


def _doses(dose: Any, pair: bool) -> tuple[float, ...]:
    if pair and dose is None:
        raise UserError(
            "dose is missing: a pair needs that of its low-dose image, as a fraction "
            "of normal dose (0.25 for a quarter), or (low, normal)."
        )
    doses = np.atleast_1d(np.asarray(1.0 if dose is None else dose, float))
    if pair and doses.size == 1:
        doses = np.append(doses, 1.0)
    if doses.size != 1 + pair or not np.all(doses > 0) or doses[0] > 1:
        raise UserError(
            f"dose = {dose}; fractions of normal dose in (0, 1], "
            + ("(low, normal)." if pair else "one number.")
        )
    if pair and not doses[0] < doses[1]:
        raise UserError(f"dose = {dose}; the first image of a pair is the low dose.")
    return tuple(float(value) for value in doses)


def _require_noise(spectra: spectrum_fit.Spectra) -> None:
    deviation = math.sqrt(float(np.median(variance_hu2(spectra.power))))
    if deviation < _LEAST_NOISE_HU:
        raise UserError(
            f"the flat patches hold noise of {deviation:.2f} HU: too little for a "
            "calibration. Give the scanner's images, neither denoised nor averaged."
        )


def _calibration(
    fitted: spectrum_fit.Fit,
    spectra: spectrum_fit.Spectra,
    electronic_error: float | None,
    *,
    views: int | None,
    mu_water_per_mm: float,
    relation: str,
) -> Calibration:
    """Returns the fit's numbers, with the level scaled so that variances agree.

    The likelihood gives every frequency and direction the same weight. If the model is
    only nearly right, its level is not that of the variance.
    """
    noise = spectra.power - fitted.anatomy
    ratio = noise.sum(axis=1) / fitted.noise.sum(axis=1)
    level = float(np.mean(ratio))
    model = level * fitted.noise
    groups = np.unique(spectra.group)
    by_group = [np.median(ratio[spectra.group == group]) for group in groups]
    misfit = texture_error(model, noise)
    if misfit > _NO_NOISE:
        raise UserError(
            f"no usable flat region: the spectrum of {len(ratio)} patches is "
            f"{100 * misfit:.0f} % off that of any scanner's noise. They hold "
            "edges or a pattern; give slices with heart, liver or muscle."
        )
    window = fitted.family.window(fitted.shape)
    electronic_variance = fitted.electronic_variance
    if electronic_error is not None:
        electronic_variance, electronic_error = (
            electronic_variance / level,
            electronic_error / level,
        )
    return Calibration(
        photons=math.exp(-fitted.log_alpha) / level,
        photons_error=float(fitted.errors[0]),
        electronic_variance=electronic_variance,
        electronic_error=electronic_error,
        filter_name=fitted.family.filter_name,
        cutoff=fitted.family.cutoff(fitted.shape),
        cutoff_error=None if window else float(fitted.errors[2]),
        window=window,
        views=views,
        mu_water_per_mm=mu_water_per_mm,
        patches=len(ratio),
        slices=len(groups),
        noise_hu=math.sqrt(max(float(np.mean(variance_hu2(noise))), 0.0)),
        model_hu=math.sqrt(float(np.mean(variance_hu2(model)))),
        level_spread=float(np.std(np.log(np.maximum(by_group, 1e-6)))) / 2,
        texture_error=misfit,
        relation=relation,
    )
