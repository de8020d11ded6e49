"""The scan that a user's own images come from: photons, electronics, kernel.

`calibrate` reads normal-dose images, or a low-dose and a normal-dose image of one
patient, and returns the parameters with which `simulate_low_dose` makes noise of the
same level and texture. Flat patches of soft tissue (`flat_patches`, `patch_spectra`)
are compared with the spectrum that the model predicts for each of them from the line
integrals through it (`ray_noise`, `spectrum_fit`, `robust_fit`). Photons are those of
the model: thicker slices, more views or more tube current count as more of them.

What a pair adds. Electronics' noise grows as 1 / dose^2 and as exp(2 p), photons' as
1 / dose and exp(p): at low dose, or between two doses, they can be told apart; one
normal-dose image cannot tell, and keeps the variance it is given. If both images show
the same anatomy at the same place, their difference alone is read: anatomy cancels in
it, and it is what a simulation has to add. Its noise is the sum of both when the scans
are independent, and low less normal when the low dose was made from the normal dose's
own raw data, as in public quarter-dose collections; the correlation of the difference
with the normal-dose image tells which.
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
# Noise below this is that of whole HU, or none.
_LEAST_NOISE_HU = 0.5
# A radial NPS this far off is no scanner's noise.
_NO_NOISE = 0.5
# Photons^2: an electronic variance known no better than this, and no better than to a
# half, is not known.
_VAGUE_VARIANCE = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """A scanner and protocol as `simulate_low_dose` needs them, and how sure that is.

    Errors are relative standard errors between slices (between patches where there are
    fewer than four slices), as far as the model itself holds: `level_spread` and
    `texture_error` say how far it does.

    Attributes:
      photons: a ray at normal dose.
      photons_error: relative standard error, kernel unknown.
      electronic_variance: photons^2.
      electronic_error: standard error, photons^2; None where the images cannot tell and
        the value is the one given.
      filter_name: the reconstruction filter that fits best.
      cutoff: of that filter.
      cutoff_error: relative standard error; None for a measured window.
      window: measured factors on the filter; () where a named one fits.
      views: of the simulated scan.
      mu_water_per_mm: as assumed.
      patches: that were used.
      slices: that they come from.
      noise_hu: standard deviation measured in the patches, from 0.09 to 0.45 cycles a
        pixel, root mean square.
      model_hu: what the model gives there.
      level_spread: relative deviation, between slices, of measured noise to the
        model's (standard deviations); tube current that follows the patient shows here.
      texture_error: root mean square of the relative misfit of the radial NPS, weighted
        by its power.
      relation: of a pair: 'independent', 'inserted', 'unaligned'; '' for one image.
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
        """Parameters of a scan of this scanner at a fraction of normal dose."""
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
        """Lines for people: values, how sure they are, what could not be told."""
        percent = 100 * self.photons_error
        lines = [f"photons a ray at normal dose: {self.photons:.3g} +- {percent:.0f} %"]
        if self.electronic_error is None:
            lines.append(
                f"electronic noise: not identified, {self.electronic_variance:g} "
                "photons^2 kept (at low dose, or in a low and normal pair, it shows)"
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
                "the noise level differs between slices by more than the model knows: "
                "tube current that follows the patient, or filters that follow the "
                "signal; photons are a mean"
            )
        return lines


_RELATIONS = {
    "independent": "aligned, noise independent: the difference was used",
    "inserted": "aligned, the low dose holds the normal dose's own noise: the "
    "difference was used",
    "unaligned": "not aligned, or partly correlated: each image was used alone",
}


def calibrate(
    images_hu: Any,
    spacing_mm: Any,
    *,
    dose: Any = None,
    electronic_variance: float = 10.0,
    views: int | None = None,
    mu_water_per_mm: float = 0.0192,
) -> Calibration:
    """The scan that images come from.

    Args:
      images_hu: `*b h w` images in HU of one scanner and protocol, at normal dose, some
        with soft tissue; or a pair (low, normal) of them, of the same shape. Of more
        than 24 slices, 24 evenly spaced ones are read.
      spacing_mm: size of the square pixels; as in `simulate_low_dose`.
      dose: of the images as a fraction of normal dose, 1 if None; for a pair that of
        the low-dose image (normal is 1), or (low, normal), `math.inf` for no noise.
      electronic_variance: photons^2, assumed where the images cannot tell.
      views: of the scan that will be simulated; see `DoseParams`.
      mu_water_per_mm: attenuation of water.

    Raises:
      UserError: input that is not HU or does not fit together, no dose for a pair, no
        flat soft tissue, or none with noise in it.
    """
    pair = isinstance(images_hu, tuple)
    images = [
        _checked(image, spacing_mm) for image in (images_hu if pair else [images_hu])
    ]
    if pair and (len(images) != 2 or images[0].shape != images[1].shape):
        raise UserError(
            "a pair is (low, normal), two images of one shape; got "
            f"{[image.shape for image in images]}."
        )
    doses = _doses(dose, pair)
    flat = [image.reshape(-1, *image.shape[-2:]) for image in images]
    spacing = _spacing(spacing_mm, images[0].shape[:-2])
    chosen = np.unique(np.linspace(0, len(spacing) - 1, _SLICES).round().astype(int))
    flat = [np.asarray(image[chosen], np.float32) for image in flat]
    spacing = spacing[chosen]
    relation = ""
    if pair:
        relation, parts = pair_spectra(flat, spacing, doses, views, mu_water_per_mm)
        spectra = spectrum_fit.Spectra(
            *(np.concatenate(p) for p in zip(*parts, strict=True))
        )
    else:
        channel = Channel(flat[0], 1 / doses[0], 1 / doses[0] ** 2)
        patches = flat_patches.flat_patches(flat[0])
        spectra = patch_spectra(
            channel, flat[0], patches, spacing, views, mu_water_per_mm
        )
    _require_noise(spectra)
    # Anatomy cancels in a difference.
    texture = relation in ("", "unaligned")
    read = spectra
    fitted, spectra = robust_fit(
        read, None if pair else electronic_variance, texture=texture
    )
    q_error = float(fitted.errors[1]) if pair else None
    if q_error is not None and q_error > max(
        fitted.electronic_variance / 2, _VAGUE_VARIANCE
    ):
        fitted, spectra = robust_fit(read, electronic_variance, texture=texture)
        q_error = None
    return _calibration(
        fitted,
        spectra,
        q_error,
        views=views,
        mu_water_per_mm=mu_water_per_mm,
        relation=relation,
    )


def _checked(image_hu: Any, spacing_mm: Any) -> np.ndarray:
    image = np.asarray(image_hu)
    try:
        photon_noise.check_image(image)
        photon_noise.slice_spacing(spacing_mm, image.shape[:-2])
    except ValueError as error:
        raise UserError(str(error)) from error
    if min(image.shape[-2:]) < 2 * flat_patches.SIZE:
        raise UserError(
            f"image_hu is {image.shape[-2:]} pixels; a calibration reads patches of "
            f"{flat_patches.SIZE} x {flat_patches.SIZE} and needs twice that."
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
            f"the flat patches hold noise of {deviation:.2f} HU: nothing to calibrate "
            "on. Give images as the scanner made them, neither denoised nor averaged."
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
    """The fit's numbers, its level set so that variances agree.

    The likelihood weighs every frequency and every direction alike; where the model is
    only nearly right, its level would not be that of the variance.
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
