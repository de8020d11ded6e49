"""The scan that a user's own images come from: photons, electronics, kernel.

`calibrate` reads normal-dose images, or a low-dose and a normal-dose image of one
patient, and returns the parameters with which `simulate_low_dose` makes noise of the
same level and texture. Flat patches of soft tissue (`flat_patches`) are compared with
the spectrum that the model predicts for each of them from the line integrals through
it (`ray_noise`, `spectrum_fit`). Photons are those of the model: a scan of thicker
slices, more views or a stronger tube current counts as more of them.

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
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from ipv2 import flat_patches, noise_analysis, ray_noise, spectrum_fit
from ipv2.kernels import photon_noise, smoothing

_SLICES = 24
_LEAST_PATCHES = 4
# Noise below this is that of whole HU, or none.
_LEAST_NOISE_HU = 0.5
_QUANTISATION_HU2 = 1 / 12
# A measured window replaces a named filter whose radial NPS is off by this much more.
_WORSE = 0.03
# A radial NPS this far off is no scanner's noise.
_NO_NOISE = 0.5
# Named filters other than hann must be better than it by this much.
_BETTER = 0.0005
# Patches that are left out: level this many (robust) deviations off, anatomy above
# this share of the noise.
_OUTLYING, _LEAST_SPREAD, _MOST_ANATOMY = 3.0, 0.05, 0.5
_ROUNDS = 2
# Standard errors above zero from which a patch is said to hold anatomy.
_EVIDENT = 2.0
# Relative variance of a ray's counts above which they say little: 3 or 4 photons.
_STARVED = 0.3
# Photons^2: an electronic variance known no better than this, and no better than to a
# half, is not known.
_VAGUE_VARIANCE = 10.0
# Pixels that anatomy may be apart in a pair that is called aligned.
_ALIGNED_PX = 0.5
_SAME, _APART = 0.25, 0.75


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


class _Channel(NamedTuple):
    """An image with noise c1 V1 + c2 V2, V1 and V2 those of normal dose."""

    noisy: np.ndarray
    photons_factor: float
    electronics_factor: float


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
        relation, parts = _pair_spectra(flat, spacing, doses, views, mu_water_per_mm)
        spectra = spectrum_fit.Spectra(
            *(np.concatenate(p) for p in zip(*parts, strict=True))
        )
    else:
        channel = _Channel(flat[0], 1 / doses[0], 1 / doses[0] ** 2)
        patches = flat_patches.flat_patches(flat[0])
        spectra = _spectra(channel, flat[0], patches, spacing, views, mu_water_per_mm)
    _require_noise(spectra)
    # Anatomy cancels in a difference.
    texture = relation in ("", "unaligned")
    read = spectra
    fitted, spectra = _robust_fit(
        read, None if pair else electronic_variance, texture=texture
    )
    q_error = float(fitted.errors[1]) if pair else None
    if q_error is not None and q_error > max(
        fitted.electronic_variance / 2, _VAGUE_VARIANCE
    ):
        fitted, spectra = _robust_fit(read, electronic_variance, texture=texture)
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


def _periodograms(patches: np.ndarray) -> np.ndarray:
    power = noise_analysis.periodograms(jnp.asarray(patches), 1.0, taper=True)
    power = np.asarray(power, np.float64)[:, spectrum_fit.used()]
    whole = np.all(patches == np.round(patches))
    return np.maximum(power - (_QUANTISATION_HU2 if whole else 0.0), 0.0)


def _cut(image: np.ndarray, patches: flat_patches.FlatPatches) -> np.ndarray:
    half = flat_patches.SIZE // 2
    corner = patches.centre - half
    cut = [
        image[i, row : row + 2 * half, column : column + 2 * half]
        for i, (row, column) in zip(patches.index, corner, strict=True)
    ]
    return np.asarray(cut, np.float32).reshape(-1, 2 * half, 2 * half)


def _spectra(
    channel: _Channel,
    anatomy_hu: np.ndarray,
    patches: flat_patches.FlatPatches,
    spacing: np.ndarray,
    views: int | None,
    mu_water: float,
) -> spectrum_fit.Spectra:
    """Periodograms of the channel's patches, and the model's parts for them."""
    if len(patches.index) < _LEAST_PATCHES:
        raise UserError(
            f"no usable flat region: {len(patches.index)} flat patches of soft tissue "
            f"in {len(anatomy_hu)} slices, at least {_LEAST_PATCHES} are needed. "
            f"A patch is {flat_patches.SIZE} x {flat_patches.SIZE} pixels between -200 "
            "and 200 HU without an edge: heart, liver, muscle. Give more slices, or "
            "check that the images are HU."
        )
    photons, electronics, scale = ray_noise.ray_variances(
        anatomy_hu, spacing, patches, views=views, mu_water_per_mm=mu_water
    )
    used = spectrum_fit.used()
    return spectrum_fit.Spectra(
        _periodograms(_cut(channel.noisy, patches)),
        channel.photons_factor * ray_noise.tapered(photons)[:, used],
        channel.electronics_factor * ray_noise.tapered(electronics)[:, used],
        scale,
        patches.index,
    )


def _pair_spectra(
    flat: list[np.ndarray],
    spacing: np.ndarray,
    doses: tuple[float, ...],
    views: int | None,
    mu_water: float,
) -> tuple[str, list[spectrum_fit.Spectra]]:
    """How the images of a pair relate, and what is to be fitted together."""
    low, normal = flat
    first, second = (1 / doses[0], 1 / doses[1])
    patches = flat_patches.flat_patches(normal)
    relation = "unaligned"
    if len(patches.index) and _displacement_px(low, normal) < _ALIGNED_PX:
        relation = _noise_relation(low, normal, patches, second > 0)
    if relation != "unaligned":
        sign = 1 if relation == "independent" else -1
        noise = _Channel(
            low - normal, first + sign * second, first**2 + sign * second**2
        )
        # The normal dose's own noise is not asked: the difference is what a simulation
        # has to add, even where the two disagree.
        return relation, [_spectra(noise, normal, patches, spacing, views, mu_water)]
    own = _Channel(low, first, first**2)
    place = flat_patches.flat_patches(low)
    parts = [_spectra(own, low, place, spacing, views, mu_water)]
    if second > 0:
        own = _Channel(normal, second, second**2)
        parts.append(_spectra(own, normal, patches, spacing, views, mu_water))
    return relation, parts


def _displacement_px(low: np.ndarray, normal: np.ndarray) -> float:
    """How far apart edges of the two images are, root mean square, pixels.

    What the smoothed images differ by at steep places over how steep they are, less
    what they differ by in flat tissue, which is noise.
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
    """Whether the low-dose image holds the normal-dose image's own noise.

    With l and n the noise of both, -<F(l - n) F(n)*> / <|F(n)|^2> is 1 for independent
    noise and 0 for l = n + more.
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


def _require_noise(spectra: spectrum_fit.Spectra) -> None:
    deviation = math.sqrt(float(np.median(_variance(spectra.power))))
    if deviation < _LEAST_NOISE_HU:
        raise UserError(
            f"the flat patches hold noise of {deviation:.2f} HU: nothing to calibrate "
            "on. Give images as the scanner made them, neither denoised nor averaged."
        )


def _variance(power: np.ndarray) -> np.ndarray:
    """Variance in the frequencies that are read, HU^2: both of each pair f, -f."""
    return 2 * power.sum(axis=1) / flat_patches.SIZE**2


def _robust_fit(
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
        if keep.sum() < _LEAST_PATCHES:
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
    off = [_texture_error(f.noise, spectra.power - f.anatomy) for f in (named, free)]
    return free if off[1] < off[0] - _WORSE else named


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
    texture_error = _texture_error(model, noise)
    if texture_error > _NO_NOISE:
        raise UserError(
            f"no usable flat region: the spectrum of {len(ratio)} patches is "
            f"{100 * texture_error:.0f} % off that of any scanner's noise. They hold "
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
        noise_hu=math.sqrt(max(float(np.mean(_variance(noise))), 0.0)),
        model_hu=math.sqrt(float(np.mean(_variance(model)))),
        level_spread=float(np.std(np.log(np.maximum(by_group, 1e-6)))) / 2,
        texture_error=texture_error,
        relation=relation,
    )


def _texture_error(model: np.ndarray, measured: np.ndarray) -> float:
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
