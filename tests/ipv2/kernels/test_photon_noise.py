"""Photon noise against its own statistics, closed forms and scikit-image."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels import photon_counts, photon_noise, projection
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.kernels.reconstruction_filter import filter_response
from tests.oracles.chest import chest
from tests.oracles.projection import sinc_backprojection

SIZE = 64
SPACING = 5.0  # a 320 mm field of view: 240 mm of water attenuate about 4.6


def water(size=SIZE, radius=24.0):
    """A disc of water in air, HU."""
    row, column = np.mgrid[:size, :size] - size // 2
    distance = np.sqrt(row**2 + column**2)
    return (1000 * np.clip(radius + 0.5 - distance, 0, 1) - 1000).astype(np.float32)


def within(radius, size=SIZE):
    row, column = np.mgrid[:size, :size] - size // 2
    return row**2 + column**2 <= radius**2


IMAGES = np.stack([water()] * 8)


sample_counts = jax.jit(photon_counts.sample_counts)
quantile = jax.jit(jax.scipy.stats.norm.ppf)


def noise(dose_params, seed=0, images=IMAGES):
    return np.asarray(
        simulate_low_dose(jax.random.key(seed), images, SPACING, dose_params) - images
    )


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.3, 0.5])
@pytest.mark.parametrize("mean", [0.3, 4.0, 12.0, 21.0, 200.0, 20000.0])
def test_sample_counts_have_the_distribution(mean, fraction):
    # An evenly spaced sample of the normal instead of a random one: no luck involved.
    n = 200_000
    uniform = (np.arange(n) + 0.5) / n
    normal = quantile(jnp.asarray(uniform, jnp.float32))
    if fraction:
        mean = round(mean / fraction) * fraction
    counts = np.asarray(sample_counts(normal, jnp.full(n, mean, jnp.float32), fraction))
    assert np.array_equal(counts, np.round(counts)) and counts.min() >= 0
    variance = mean * (1 - fraction)
    # 1e-3 sd and 0.5 %: float32 quantiles and what the expansion leaves out.
    assert counts.mean() == pytest.approx(mean, abs=2e-3 * math.sqrt(variance))
    assert counts.var() == pytest.approx(variance, rel=5e-3)
    rng = np.random.default_rng(0)
    drawn = (
        rng.binomial(round(mean / fraction), fraction, n)
        if fraction
        else rng.poisson(mean, n)
    )
    # Kolmogorov-Smirnov, 0.1 % level for one random sample of n against an exact law.
    value = np.unique(np.concatenate([counts, drawn]))
    ours, theirs = (
        np.searchsorted(np.sort(sample), value, side="right") / n
        for sample in (counts, drawn)
    )
    assert np.abs(ours - theirs).max() < 1.95 / math.sqrt(n)


@pytest.mark.parametrize("source_distance_mm", [None, 570.0])
def test_a_slice_of_half_the_current_has_half_the_photons(source_distance_mm):
    scan = DoseParams(dose=0.1, views=48, source_distance_mm=source_distance_mm)
    keys = jax.random.split(jax.random.key(0), 2)
    mixed = simulate_low_dose(
        keys, IMAGES[:2], SPACING, scan, relative_current=np.array([1.0, 0.5])
    )
    half = dataclasses.replace(scan, photons=scan.photons / 2)
    for place, params in enumerate((scan, half)):
        own = simulate_low_dose(keys, IMAGES[:2], SPACING, params)
        np.testing.assert_array_equal(mixed[place], own[place])


@pytest.mark.parametrize("current", [0.0, -1.0, math.nan, (1.0, 1.0, 1.0)])
def test_a_current_that_is_none_is_refused(current):
    with pytest.raises(ValueError, match="relative_current"):
        simulate_low_dose(
            jax.random.key(0),
            IMAGES[:2],
            SPACING,
            DoseParams(dose=0.1),
            relative_current=np.asarray(current),
        )


@pytest.mark.slow
def test_dose_one_changes_nothing():
    np.testing.assert_array_equal(noise(DoseParams(dose=1.0)), 0.0)
    np.testing.assert_array_equal(noise(DoseParams(dose=0.3, input_dose=0.3)), 0.0)


@pytest.mark.slow
def test_variance_follows_one_over_dose_minus_one():
    inside = within(18)
    # So many photons that a count's logarithm is linear down to the lowest dose.
    scan = DoseParams(dose=0.5, photons=1e7, electronic_variance=0.0)
    variance = {
        dose: noise(dataclasses.replace(scan, dose=dose))[:, inside].var()
        for dose in (0.8, 0.5, 0.25, 0.1)
    }
    unit = variance[0.5]
    for dose, value in variance.items():
        # The same keys at every dose: what differs is the physics, not the sample.
        assert value / unit == pytest.approx(1 / dose - 1, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("source_distance_mm", [None, 600.0])
def test_noise_at_the_centre_has_the_variance_of_theory(source_distance_mm):
    """sigma^2 = (pi / n)^2 sum_views V sum h^2 (Kak and Slaney 1988, section 5.2)."""
    scan = DoseParams(
        dose=0.1,
        photons=1e6,
        electronic_variance=200.0,
        source_distance_mm=source_distance_mm,
    )
    centre = within(1)
    sample = np.concatenate([noise(scan, seed)[:, centre] for seed in range(40)])
    diameter_mm = 48 * SPACING
    counts = scan.photons * math.exp(-0.0192 * diameter_mm)
    ratio = scan.dose
    variance = (1 - ratio) / (ratio * counts)
    variance += scan.electronic_variance * (1 - ratio**2) / (ratio * counts) ** 2
    padded = photon_noise.scan_geometry((SIZE, SIZE), None).padded
    response = filter_response("hann", padded)
    twice = np.full(response.size, 2.0)
    twice[[0, -1]] = 1.0
    energy = np.sum(twice * response.astype(np.float64) ** 2) / padded
    # A turn of 65 fan views sends as many rays through the centre.
    views = SIZE if source_distance_mm is None else SIZE + 1
    sd_mu = math.pi * math.sqrt(variance * energy / views) / SPACING
    # 5 %: 320 images of 5 correlated pixels have 3 %, chords off centre are shorter.
    assert sample.std() == pytest.approx(1000 * sd_mu / 0.0192, rel=0.05)


@pytest.mark.slow
def test_two_steps_add_the_variance_of_one():
    inside = within(18)
    scan = DoseParams(dose=0.1, photons=1e6, electronic_variance=50.0)
    first = dataclasses.replace(scan, dose=0.4)
    second = dataclasses.replace(scan, input_dose=0.4)
    direct = [noise(scan, seed)[:, inside].var() for seed in range(6)]
    steps = [
        (noise(first, 10 + seed) + noise(second, 20 + seed))[:, inside].var()
        for seed in range(6)
    ]
    # 5 %: the sampling error of 48 x 1009 correlated pixels, twice.
    assert np.mean(steps) == pytest.approx(np.mean(direct), rel=0.05)


@pytest.mark.slow
def test_input_without_noise_gets_all_of_it():
    inside = within(18)
    scan = DoseParams(dose=0.1, photons=1e6, electronic_variance=50.0)
    clean = dataclasses.replace(scan, input_dose=math.inf)
    full = dataclasses.replace(clean, dose=1.0)
    direct, own = (
        np.mean([noise(s, seed)[:, inside].var() for seed in range(6)])
        for s in (clean, full)
    )
    missing = np.mean([noise(scan, seed)[:, inside].var() for seed in range(6)])
    # 5 %: sampling, as above.
    assert missing + own == pytest.approx(direct, rel=0.05)
    assert own == pytest.approx(direct / 10, rel=0.1)


@pytest.mark.slow
def test_texture_is_that_of_brute_force_backprojection():
    size = 64
    rng = np.random.default_rng(0)
    angle = projection.uniform_angles(size)
    sinogram = rng.normal(size=(size, size)).astype(np.float32)
    ours = projection.filtered_backprojection(sinogram, angle, "hann")
    response = filter_response(
        "hann", photon_noise.scan_geometry((64, 64), None).padded
    )
    theirs = sinc_backprojection(sinogram, angle, response, (size, size))
    centre = slice(10, -10)  # the square inside the circle
    power = [
        np.abs(np.fft.fft2(image[centre, centre])) ** 2
        for image in (np.asarray(ours), theirs)
    ]
    frequency = np.fft.fftfreq(44)
    radius = np.hypot(frequency[:, None], frequency[None])
    for low in np.arange(0, 0.4, 0.05):
        ring = (radius >= low) & (radius < low + 0.05)
        # 5 %: what the issue asks for. Both reconstruct the same sinogram.
        assert power[0][ring].sum() == pytest.approx(power[1][ring].sum(), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("source_distance_mm", [None, 595.0])
def test_mean_of_every_region_stays_within_a_unit_to_quarter_dose(source_distance_mm):
    spacing = 3.0
    image, regions = chest(128, spacing)
    scan = DoseParams(dose=0.25, source_distance_mm=source_distance_mm)
    moved = np.mean(
        [
            simulate_low_dose(jax.random.key(seed), images, spacing, scan) - images
            for seed, images in enumerate([np.stack([image] * 8)] * 8)
        ],
        axis=(0, 1),
    )
    # 1 HU: what the issue asks for. Sampling: 0.26 HU in the bone, the smallest region.
    for name, region in regions.items():
        assert abs(moved[region].mean()) < 1, name


@pytest.mark.slow
def test_mean_hu_stays_to_quarter_dose_and_is_biased_as_predicted_below():
    centre = within(12)
    moved = noise(DoseParams(dose=0.25))
    assert abs(moved[:, centre].mean()) < 1
    scan = DoseParams(dose=0.02, electronic_variance=0.0)
    line = projection.radon(1 + IMAGES[:1] / 1000, projection.uniform_angles(SIZE))
    counts = scan.photons * np.exp(-0.0192 * SPACING * np.asarray(line))
    predicted = (1 - scan.dose) / (2 * scan.dose * counts)
    expected = projection.filtered_backprojection(
        predicted.astype(np.float32),
        projection.uniform_angles(SIZE),
        "hann",
        spacing_mm=SPACING,
    )
    expected = np.asarray(expected)[0, centre].mean() * 1000 / 0.0192
    actual = np.mean([noise(scan, seed)[:, centre].mean() for seed in range(12)])
    assert expected > 4
    # 20 %: the next order, 5 / (12 lambda^2) at 30 counts, and the sampling error.
    assert actual == pytest.approx(expected, rel=0.2)


def test_starved_rays_stay_finite():
    metal = IMAGES + 8000 * within(6).astype(np.float32)
    scan = DoseParams(dose=0.001, photons=1e4)
    assert np.all(np.isfinite(noise(scan, images=metal)))


@pytest.mark.slow
@pytest.mark.parametrize("source_distance_mm", [None, 600.0])
def test_noise_of_a_slice_does_not_depend_on_its_batch(source_distance_mm):
    rng = np.random.default_rng(0)
    images = IMAGES + rng.normal(0, 5, IMAGES.shape).astype(np.float32)
    keys = jax.random.split(jax.random.key(3), 8)
    spacing = np.linspace(4, 6, 8).astype(np.float32)
    scan = DoseParams(dose=0.05, source_distance_mm=source_distance_mm)
    together = simulate_low_dose(keys, images, spacing, scan)
    for chosen in ([0], [5], [6, 1, 3]):
        index = np.array(chosen)
        few = simulate_low_dose(keys[index], images[index], spacing[index], scan)
        np.testing.assert_array_equal(few, together[index])
    # One key: a slice's noise depends on its position, not on how many follow.
    one = simulate_low_dose(jax.random.key(4), images, 5.0, scan)
    few = simulate_low_dose(jax.random.key(4), images[:1], 5.0, scan)
    np.testing.assert_array_equal(one[:1], few)
    assert not np.allclose((one - images)[0], (one - images)[1], atol=1)


@pytest.mark.slow
def test_jit_agrees_and_nothing_is_compiled_again():
    scan = DoseParams(dose=0.1)
    key = jax.random.key(0)
    eager = simulate_low_dose(key, IMAGES, SPACING, scan)
    before = photon_noise._jit_noise_hu._cache_size()
    other = dataclasses.replace(scan, dose=0.02, photons=9e4, filter_name="ramp")
    simulate_low_dose(jax.random.key(1), IMAGES, 4.0, other)
    assert photon_noise._jit_noise_hu._cache_size() == before
    geometry = photon_noise.scan_geometry((SIZE, SIZE), None)

    @jax.jit
    def step(geometry, key, images, spacing):
        return simulate_low_dose(key, images, spacing, scan, geometry=geometry)

    spacing = jnp.full((8, 2), SPACING)
    np.testing.assert_allclose(
        step(geometry, key, IMAGES, spacing), eager, atol=0.05, rtol=1e-4
    )


def test_gradient_for_the_image_is_the_identity():
    def total(images):
        return simulate_low_dose(
            jax.random.key(0), images, SPACING, DoseParams(dose=0.1)
        ).sum()

    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(IMAGES)), 1.0)


def test_air_below_minus_1000_attenuates_like_air():
    padded = np.where(within(31)[None], IMAGES, -3024.0).astype(np.float32)
    scan = DoseParams(dose=0.1)
    np.testing.assert_allclose(noise(scan, images=padded), noise(scan), atol=0.05)


@pytest.mark.slow
def test_rectangles_and_odd_sizes_are_simulated():
    image = water(64)[5:42, :63]
    result = simulate_low_dose(jax.random.key(0), image, 2.0, DoseParams(dose=0.1))
    added = np.asarray(result) - image
    assert added.shape == (37, 63) and 5 < added.std() < 500


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dose": 0.0}, "dose = 0.0"),
        ({"dose": 2}, "dose = 2"),
        ({"dose": float("nan")}, "dose = nan"),
        ({"dose": 0.5, "input_dose": 0.3}, "input's own, 0.3"),
        ({"dose": 0.5, "input_dose": 1.5}, "input_dose = 1.5"),
        ({"dose": 1.5, "input_dose": math.inf}, "dose = 1.5"),
        ({"dose": 0.5, "photons": 0}, "photons = 0"),
        ({"dose": 0.5, "electronic_variance": -1}, "electronic_variance = -1"),
        ({"dose": 0.5, "mu_water_per_mm": 19.2}, "mu_water_per_mm = 19.2"),
        ({"dose": 0.5, "views": 0}, "views = 0"),
        ({"dose": 0.5, "filter_name": "sharp"}, "shepp-logan"),
        ({"dose": 0.5, "source_distance_mm": -1.0}, "source_distance_mm = -1.0"),
        ({"dose": 0.5, "source_distance_mm": math.inf}, "source_distance_mm = inf"),
        ({"dose": 0.5, "source_distance_mm": 595, "views": 2}, "at least 3"),
        ({"dose": 0.5, "cutoff": 0.0}, "cutoff = 0.0"),
        ({"dose": 0.5, "cutoff": 4.1}, "cutoff = 4.1"),
    ],
)
def test_dose_params_outside_their_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DoseParams(**fields)


@pytest.mark.parametrize(
    ("image", "spacing", "message"),
    [
        (np.full((8, 8), -1000.0), 1.0, "at least 16"),
        (np.full((64, 64), np.nan), 1.0, "not finite"),
        (np.tile(np.arange(64.0), (64, 1)), 1.0, "grey levels"),
        (np.zeros((64, 64), np.uint8), 1.0, "uint8: grey levels"),
        (np.full((64, 64), np.inf), 1.0, "not finite"),
        (IMAGES, None, "spacing_mm is missing"),
        (IMAGES, 0.0, "above 0 mm"),
        (IMAGES, -0.7, "above 0 mm"),
        (IMAGES, math.nan, "above 0 mm"),
        (IMAGES, (0.8, 0.9), "rows and columns differ"),
        (IMAGES, np.ones(3), r"shape \(3,\)"),
    ],
)
def test_bad_images_are_refused(image, spacing, message):
    with pytest.raises(ValueError, match=message):
        simulate_low_dose(jax.random.key(0), image, spacing, DoseParams(dose=0.1))


def test_sources_inside_the_image_and_other_geometries_are_refused():
    scan = DoseParams(dose=0.1, source_distance_mm=200.0)
    key = jax.random.key(0)
    # The circle's radius is 32 pixels of 5 mm.
    with pytest.raises(ValueError, match=r"source lies inside .* radius 160.0 mm"):
        simulate_low_dose(key, IMAGES, SPACING, scan)
    parallel = photon_noise.scan_geometry((SIZE, SIZE), None)
    with pytest.raises(ValueError, match="`fan_scan_geometry` belongs to a distance"):
        simulate_low_dose(key, IMAGES, 1.0, scan, geometry=parallel)


def test_keys_that_do_not_fit_the_batch_are_refused():
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(ValueError, match="one key, or one for each image"):
        simulate_low_dose(keys, IMAGES, SPACING, DoseParams(dose=0.1))
