"""Calibration against scanners with known parameters, and against bad input."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from ipv2 import calibration
from ipv2.calibration import (
    body_patches,
    calibrate,
    flat_patches,
    photons_error,
    ray_noise,
    spectrum_fit,
)
from ipv2.calibration.robust_fit import RobustFit
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.kernels.reconstruction_filter import filter_response
from ipv2.measures import noise_analysis

# Much arithmetic and little compilation: optimized code is twice as fast here.
pytestmark = pytest.mark.optimized

SIZE, SPACING = 160, 2.2  # 350 mm; 250 mm of water attenuate 4.8


@functools.cache
def patients():
    """Six elliptic bodies of soft tissue, HU, noise-free."""
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    images = []
    for wide in (52, 55, 58, 61, 64, 67):
        inside = 1 - np.hypot(row / (0.8 * wide), column / wide)
        body = np.clip(wide * inside + 0.5, 0, 1)
        images.append(1040 * body - 1000 + 10 * np.sin(column / 40) * body)
    return np.stack(images).astype(np.float32)


def scan(seed, images=None, **fields):
    params = DoseParams(**{"input_dose": math.inf, "dose": 1.0, **fields})
    images = patients() if images is None else images
    return np.asarray(simulate_low_dose(jax.random.key(seed), images, SPACING, params))


@pytest.mark.slow
def test_one_image_gives_photons_and_kernel():
    found = calibrate(scan(0, photons=2e5, cutoff=0.8), SPACING)
    # 10 %, 2 %: three standard errors of some 60 overlapping patches.
    assert found.photons == pytest.approx(2e5, rel=0.1)
    assert found.photons_error < 0.05
    assert (found.filter_name, found.window) == ("hann", ())
    assert found.cutoff == pytest.approx(0.8, rel=0.02)
    assert found.electronic_error is None and found.electronic_variance == 10
    assert found.model_hu == pytest.approx(found.noise_hu, rel=0.02)
    assert "not identified" in " ".join(found.describe())
    params = found.dose_params(0.25)
    assert params.dose == 0.25 and params.photons == found.photons


@pytest.mark.slow
@pytest.mark.parametrize(
    "relation",
    [
        "independent",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("inserted", "unaligned")
        ),
    ],
)
def test_pair_gives_electronic_noise_too(relation):
    scanner = {"photons": 1e5, "electronic_variance": 80.0, "cutoff": 1.0}
    normal = scan(1, **scanner)
    match relation:
        case "inserted":
            low = scan(2, normal, dose=0.1, **{**scanner, "input_dose": 1.0})
        case "independent":
            low = scan(2, dose=0.1, **scanner)
        case "unaligned":
            moved = np.roll(patients(), (5, -4), (1, 2))
            low = scan(2, moved, dose=0.1, **scanner)
    found = calibrate((low, normal), SPACING, dose=0.1)
    assert found.relation == relation
    # Measured: 3 %, 1 %, and a quarter for the electronics; twice to three times that.
    assert found.photons == pytest.approx(1e5, rel=0.1)
    assert found.cutoff == pytest.approx(1.0, rel=0.03)
    assert found.electronic_error is not None
    assert found.electronic_variance == pytest.approx(80, rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("bowtie_mm", [pytest.param(0.0, marks=pytest.mark.long), 90.0])
def test_aligned_pair_gives_the_bowtie_filter(bowtie_mm):
    scanner = {"photons": 4e5, "bowtie_mm": bowtie_mm}
    normal = scan(1, **scanner)
    low = scan(2, dose=0.25, **scanner)
    found = calibrate((low, normal), SPACING, dose=0.25)
    assert (found.bowtie_error is not None) == bool(bowtie_mm)
    # 15 %, 10 %: twice what was measured with 6 slices.
    assert found.bowtie_mm == pytest.approx(bowtie_mm, rel=0.15)
    assert found.photons == pytest.approx(4e5, rel=0.1)
    assert found.dose_params(0.5).bowtie_mm == found.bowtie_mm
    one = calibrate(normal, SPACING)
    assert one.bowtie_mm == 0 and "not identified" in " ".join(one.describe())


@pytest.mark.slow
def test_a_stated_tube_current_explains_the_noise_of_its_slice():
    current = np.array([0.4, 0.7, 1.0, 1.2, 1.3, 1.4])
    params = DoseParams(dose=1.0, input_dose=math.inf, photons=3e5)
    images = simulate_low_dose(
        jax.random.key(5), patients(), SPACING, params, relative_current=current
    )
    stated = calibrate(images, SPACING, relative_current=current)
    unstated = calibrate(images, SPACING)
    assert stated.photons == pytest.approx(3e5, rel=0.1)
    assert stated.level_spread < 0.05 < unstated.level_spread
    with pytest.raises(UserError, match="relative_current"):
        calibrate(images, SPACING, relative_current=current[:3])


@pytest.mark.slow
def test_kernel_that_no_named_filter_has_is_measured():
    frequency = np.linspace(0, 1, 9)
    window = tuple((1 + 2.0 * frequency**2).tolist())
    found = calibrate(scan(3, photons=4e5, cutoff=1.5, window=window), SPACING)
    assert found.window and found.cutoff_error is None
    curves = []
    for params in (
        DoseParams(
            dose=1.0, input_dose=math.inf, photons=4e5, cutoff=1.5, window=window
        ),
        found.dose_params(1.0, math.inf),
    ):
        noise = [
            simulate_low_dose(jax.random.key(seed), patients(), SPACING, params)
            - patients()
            for seed in range(4, 12)
        ]
        patches = np.asarray(noise)[:, :, 56:104, 56:104].reshape(-1, 48, 48)
        spectrum = noise_analysis.noise_power_spectrum(
            jnp.asarray(patches), SPACING, taper=True
        )
        curves.append(np.asarray(noise_analysis.radial_average(spectrum, SPACING)[1]))
    # 15 %: measured 8 % at most, of factors that one draw of six slices gives.
    np.testing.assert_allclose(curves[1][4:22], curves[0][4:22], rtol=0.15)


@pytest.mark.slow
def test_predicted_spectrum_is_that_of_simulated_noise():
    patches = flat_patches.flat_patches(patients())
    photons, electronics, scale = ray_noise.ray_variances(
        patients(), np.full(6, SPACING), patches, views=None, mu_water_per_mm=0.0192
    )
    assert np.all(scale > 0)
    used = spectrum_fit.used()
    half = flat_patches.SIZE // 2
    power = ray_noise.tapered(ray_noise.filter_power("hann", 1.0))
    scan_of = {"photons": 1e8, "electronic_variance": 1e9}
    expected = (photons / 1e8 + electronics * 1e9 / 1e16) * power
    expected = ray_noise.tapered(expected / power.clip(1e-9)) * power
    total = np.zeros((len(patches.index), int(used.sum())))
    rounds = 12
    for seed in range(rounds):
        noise = scan(seed, **scan_of) - patients()
        cut = np.stack(
            [
                noise[i, r - half : r + half, c - half : c + half]
                for i, (r, c) in zip(patches.index, patches.centre, strict=True)
            ]
        )
        found = noise_analysis.periodograms(jnp.asarray(cut), 1.0, taper=True)
        total += np.asarray(found, np.float64)[:, used] / rounds
    # 3 %: sampling; the level of every patch within 20 %, its own sampling.
    assert total.sum() == pytest.approx(expected[:, used].sum(), rel=0.03)
    ratio = total.sum(axis=1) / expected[:, used].sum(axis=1)
    assert np.all(np.abs(ratio - 1) < 0.2)


def test_variance_of_a_logarithm_of_few_counts():
    rng = np.random.default_rng(0)
    for counts, variance in ((10.0, 10.0), (30.0, 100.0), (300.0, 0.0)):
        seen = rng.poisson(counts, 400_000)
        seen = seen + rng.normal(0, math.sqrt(variance), seen.size)
        sampled = np.log(np.maximum(seen, 1)).var()
        sampled /= 1 / counts + variance / counts**2
        exact = spectrum_fit.logarithm_factor(np.array([counts]), variance)
        # 2 %: sampling, and interpolation between 49 counts.
        assert exact[0] == pytest.approx(sampled, rel=0.02)
    assert spectrum_fit.logarithm_factor(np.array([1e9]), 10.0)[0] == 1


@pytest.mark.slow
def test_flat_patches_are_flat_tissue_inside_the_field_of_view():
    image = patients()[5:].copy()
    image[:, :, SIZE // 2 :] += 400.0
    patches = flat_patches.flat_patches(image)
    half = flat_patches.SIZE // 2
    assert len(patches.index) > 0
    assert np.all(patches.centre[:, 1] + half <= SIZE // 2)
    for k, (row, column) in enumerate(patches.centre):
        own = image[0, row - half : row + half, column - half : column + half]
        np.testing.assert_array_equal(patches.pixels[k], own)
    assert not len(flat_patches.flat_patches(np.full((1, 64, 64), -1000.0)).index)


def test_all_of_the_body_is_in_patches_but_for_what_is_clipped():
    normal = patients()[0]
    low = normal + np.random.default_rng(0).normal(0, 30, normal.shape)
    low[:70] = np.maximum(low[:70], -1020.0)
    limits = body_patches.Limits(float(low.min()), -1024.0)
    patches = body_patches.body_patches(low.astype(np.float32), normal, limits)
    covered = np.zeros(normal.shape, bool)
    for row, column in patches.centre:
        covered[row - 16 : row + 16, column - 16 : column + 16] = True
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    assert np.all(covered[np.hypot(row / 0.8, column) < 48])
    assert not covered[np.hypot(row, column) > 78].any()
    # Half of this image is at the end of its range.
    clipped = body_patches.Limits(float(np.median(low)), -1024.0)
    assert len(body_patches.body_patches(low, normal, clipped).index) < len(
        patches.index
    )


@pytest.mark.slow
def test_bone_lungs_and_edges_of_an_aligned_pair_are_no_noise():
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    images = patients().copy()
    images[:, np.hypot(row, column - 46) < 10] = -850.0
    images[:, np.hypot(row, column + 42) < 6] = 900.0
    images[:, (row + column) % 8 < 4] += 60.0
    flat = (slice(None), slice(48, 112), slice(48, 112))
    images[flat] = patients()[flat]
    scanner = {"photons": 3e5, "electronic_variance": 10.0}
    normal = scan(1, images, **scanner)
    low = scan(2, normal, dose=0.25, **{**scanner, "input_dose": 1.0})
    found = calibrate((low, normal), SPACING, dose=0.25)
    assert found.relation == "inserted" and found.slices == 6
    assert found.patches > 200
    assert abs(math.log(found.photons / 3e5)) < 2 * found.photons_error
    assert found.photons_error < 0.1


class KnownFit(RobustFit):
    """A fit whose photons are known: those of another family, and of other anatomy."""

    @property
    def log_photons(self):
        return self.electronic_variance

    def again(self, family, anatomy_power=3.0):
        value = {2.0: 0.12, 3.0: 0.1, 4.0: -0.05}[anatomy_power]
        return KnownFit(fit_with_error(0.06), None, None, value)


def fit_with_error(error):
    one = np.ones((1, 1))
    return spectrum_fit.Fit(
        family=spectrum_fit.named_family("hann"),
        log_alpha=0.0,
        electronic_variance=0.0,
        shape=np.zeros(1),
        errors=np.array([error]),
        loss=0.0,
        noise=one,
        anatomy=one,
        evidence=np.ones(1),
    )


def test_parts_of_the_error_add():
    found = KnownFit(fit_with_error(0.04), None, np.array([True]), 0.0)
    # 0.1 with an error of 0.06 is 0.08 beyond chance.
    assert photons_error.kernel_error(found) == pytest.approx(0.08)
    family = spectrum_fit.window_family(found.fit)
    window = dataclasses.replace(found.fit, family=family, shape=np.zeros(3))
    error = photons_error.kernel_error(found._replace(fit=window))
    assert error == pytest.approx(np.sqrt(0.1**2 + 0.06**2 - 0.04**2))
    assert photons_error.anatomy_error(found) == pytest.approx(0.12)
    found = found._replace(textured=np.array([False]))
    assert photons_error.anatomy_error(found) == 0
    total = photons_error.photons_error(found, 0.1, 0.05)
    expected = np.sqrt(0.04**2 + 0.08**2 + 0.05**2 + 0.04**2 + 0.03**2)
    assert total == pytest.approx(expected)


def checkerboard():
    row, column = np.mgrid[:SIZE, :SIZE] // 5
    return np.where((row + column) % 2, 150.0, -100.0).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((96, 96), -1000.0, np.float32), "no usable flat region: 0 flat"),
        (patients(), "too little for a"),
        (np.zeros((40, 96), np.float32), "accepted: at least twice"),
        (np.full((96, 96), np.nan, np.float32), "not finite"),
        (np.tile(np.arange(96.0), (96, 1)), "grey levels"),
    ],
)
def test_images_without_what_is_needed_are_refused(image, message):
    with pytest.raises(UserError, match=message):
        calibrate(image, SPACING)


@pytest.mark.slow
def test_image_that_is_only_edges_is_refused():
    # Smoothed over a few pixels it is flat: its spectrum gives it away.
    with pytest.raises(UserError, match="no usable flat region"):
        calibrate(checkerboard(), SPACING)


@pytest.mark.parametrize(
    ("images", "spacing", "dose", "message"),
    [
        ((patients(), patients()), SPACING, None, "dose is missing"),
        ((patients(), patients()[:2]), SPACING, 0.1, "of one shape"),
        ((patients(), patients()), SPACING, (0.5, 0.25), "the first image of a pair"),
        ((patients(), patients()), SPACING, 2.0, r"in \(0, 1\]"),
        (patients(), SPACING, (0.5, 1.0), "one number"),
        (patients(), 0.0, None, "above 0 mm"),
        (patients(), None, None, "spacing_mm is missing"),
    ],
)
def test_input_that_does_not_fit_is_refused(images, spacing, dose, message):
    with pytest.raises(UserError, match=message):
        calibrate(images, spacing, dose=dose)


def test_a_level_that_differs_between_slices_is_described():
    fields = {
        "photons": 1e5,
        "photons_error": 0.1,
        "electronic_variance": 30.0,
        "electronic_error": 4.0,
        "filter_name": "hann",
        "cutoff": 0.9,
        "cutoff_error": 0.01,
        "window": (),
        "views": None,
        "mu_water_per_mm": 0.0192,
        "patches": 20,
        "slices": 6,
        "noise_hu": 12.0,
        "model_hu": 12.1,
        "texture_error": 0.03,
        "relation": "inserted",
    }
    quiet = calibration.Calibration(level_spread=0.02, **fields).describe()
    loud = calibration.Calibration(level_spread=0.2, **fields).describe()
    assert len(loud) == len(quiet) + 1 and "tube current" in loud[-1]
    assert quiet[0].endswith("1e+05 +- 10 %")
    vague = calibration.Calibration(
        level_spread=0.02, **{**fields, "photons_error": math.log(3)}
    )
    assert vague.describe()[0].endswith("1e+05 within a factor of 3")
    assert "30 +- 4 photons^2" in " ".join(quiet) and "normal dose's noise" in quiet[-1]


def test_window_multiplies_the_filter_and_is_checked():
    plain = filter_response("hann", 64, cutoff=1.5)
    shaped = filter_response("hann", 64, cutoff=1.5, window=(1.0, 2.0, 0.0))
    factor = np.interp(np.arange(33) / 64, [0, 0.25, 0.5], [1, 2, 0])
    np.testing.assert_allclose(shaped, plain * factor, rtol=1e-6)
    for window in ((1.0,), (1.0, -1.0), (1.0, float("nan")), (1.0, 200.0)):
        with pytest.raises(ValueError, match="factors in"):
            DoseParams(dose=0.5, window=window)
