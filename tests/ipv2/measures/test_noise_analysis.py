"""Power spectra, maps and regional noise against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures import metrics, noise_analysis

SPACING = 0.8


def white(shape, sd=10.0, seed=0):
    return np.random.default_rng(seed).normal(0, sd, shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 5, 12, 15)])
def test_spectrum_integrates_to_the_variance(shape):
    patches = jnp.asarray(white(shape))
    spectrum = noise_analysis.noise_power_spectrum(patches, SPACING, trend="mean")
    centred = patches - patches.mean(axis=(-2, -1), keepdims=True)
    variance = jnp.mean(centred**2, axis=(-3, -2, -1))
    found = noise_analysis.integrated_noise_hu(spectrum, SPACING)
    # Parseval: an identity, up to float32.
    np.testing.assert_allclose(found, jnp.sqrt(variance), rtol=1e-4)


@pytest.mark.slow
def test_spectrum_of_white_noise_is_flat_at_variance_times_pixel():
    patches = jnp.asarray(white((4000, 16, 16)))
    for taper in (False, True):
        spectrum = noise_analysis.noise_power_spectrum(
            patches, SPACING, taper=taper, trend="mean"
        )
        high = noise_analysis.radial_frequency((16, 16), SPACING) > 0.2
        # 4000 patches: 1.6 % each, 5 standard errors.
        np.testing.assert_allclose(spectrum[high], 100 * SPACING**2, rtol=0.08)


@pytest.mark.slow
def test_spectrum_averages_squares_not_transforms():
    wave = np.cos(2 * np.pi * 3 * np.arange(16) / 16).astype(np.float32)
    wave = np.broadcast_to(wave, (16, 16))
    # Opposite phases cancel in a mean of transforms.
    spectrum = noise_analysis.noise_power_spectrum(
        jnp.asarray(np.stack([wave, -wave])), 1.0, trend="mean"
    )
    expected = np.zeros((16, 16))
    expected[0, [3, -3]] = 256 / 4
    np.testing.assert_allclose(spectrum, expected, atol=1e-3)


def test_quadratic_trend_is_removed_and_the_rest_is_kept():
    y, x = np.mgrid[:20, :24] / 10.0
    trend = -900 + 30 * x - 20 * y + 9 * x * x - 4 * x * y + 3 * y * y
    noise = white((20, 24), 1.0)
    with_trend = noise_analysis.detrend(jnp.asarray(trend + noise, jnp.float32))
    without = noise_analysis.detrend(jnp.asarray(noise))
    # 1e-3 HU: float32 of 900 HU.
    np.testing.assert_allclose(with_trend, without, atol=1e-3)


@pytest.mark.slow
def test_radial_average_has_frequencies_per_mm_and_ring_means():
    shape = (3, 32, 32)
    radius = noise_analysis.radial_frequency(shape[1:], SPACING)
    spectrum = jnp.broadcast_to(jnp.asarray(radius**2, jnp.float32), shape)
    frequency, curve = noise_analysis.radial_average(spectrum, SPACING)
    assert frequency.shape == (17,) and curve.shape == (3, 17)
    assert frequency[0] == 0 and frequency[-1] == pytest.approx(0.625, rel=0.02)
    # Mean of squares against square of the mean: half a step apart at most.
    np.testing.assert_allclose(curve[0], frequency**2, atol=0.02**2 + 2e-3)
    flat = noise_analysis.radial_average(jnp.ones((10, 14)), 1.0)[1]
    np.testing.assert_allclose(flat, 1.0, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("angle_deg", [0, 20, 45])
def test_noise_map_is_hardly_moved_by_an_edge(angle_deg):
    row, column = np.mgrid[:96, :96] - 48.2
    angle = np.deg2rad(angle_deg)
    side = row * np.sin(angle) + column * np.cos(angle)
    noise = white((96, 96))
    edge = (500 * np.clip(side + 0.5, 0, 1) - 900).astype(np.float32)
    found = np.asarray(noise_analysis.noise_map(jnp.asarray(noise + edge)))
    clean = np.asarray(noise_analysis.noise_map(jnp.asarray(noise)))
    inner = np.s_[14:-14, 14:-14]
    # The map reads 3 % low. 2 %: sampling.
    assert clean[inner].mean() == pytest.approx(9.7, rel=0.02)
    # An edge of 500 HU changes values on it by a third at most: at 45 degrees it
    # crosses up to five of nine windows. It changes nothing beyond their reach.
    near, far = np.abs(side) < 3, np.abs(side) > 15
    assert np.median(found[near]) == pytest.approx(np.median(clean[near]), rel=0.33)
    np.testing.assert_allclose(found[far], clean[far], rtol=2e-2)


@pytest.mark.slow
def test_noise_map_follows_the_noise_and_ignores_slopes():
    sd = np.where(np.arange(96) < 48, 5.0, 20.0)
    slope = 8.0 * np.arange(96)[:, None] - 500
    image = (white((2, 96, 96), 1.0) * sd + slope).astype(np.float32)
    found = np.asarray(noise_analysis.noise_map(jnp.asarray(image)))
    assert found.shape == (2, 96, 96)
    # The map reads 3 % low. 3 %: 2 x 96 x 30 pixels, 49 per window.
    assert found[..., 14:34].mean() == pytest.approx(4.85, rel=0.03)
    assert found[..., 62:82].mean() == pytest.approx(19.4, rel=0.03)
    with pytest.raises(ValueError, match="at least 21"):
        noise_analysis.noise_map(jnp.zeros((20, 40)))


@pytest.mark.slow
def test_noise_by_region_agrees_with_the_metrics():
    image, truth = jnp.asarray(white((2, 32, 32))), jnp.asarray(white((2, 32, 32), 99))
    left = jnp.broadcast_to(jnp.arange(32) < 16, (2, 32, 32))
    found = noise_analysis.noise_sd_by_region(
        image + truth, {"left": left, "none": left & ~left}, truth
    )
    expected = metrics.local_sd_hu(image, left)
    # 1e-3: float32 of image + truth - truth.
    np.testing.assert_allclose(found["left"], expected, rtol=1e-3)
    assert np.all(np.isnan(found["none"]))
    alone = noise_analysis.noise_sd_by_region(image, {"left": left})
    np.testing.assert_array_equal(alone["left"], expected)


@pytest.mark.slow
def test_jit_agrees_and_bad_spacing_is_refused():
    patches = jnp.asarray(white((4, 16, 16)))
    jitted = jax.jit(lambda p: noise_analysis.noise_power_spectrum(p, SPACING))
    # 1e-5 of the largest: the order of float32 additions.
    np.testing.assert_allclose(
        jitted(patches),
        noise_analysis.noise_power_spectrum(patches, SPACING),
        rtol=1e-4,
        atol=1e-2,
    )
    with pytest.raises(ValueError, match="above 0 mm"):
        noise_analysis.periodograms(patches, 0.0)
