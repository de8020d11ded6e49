"""Tests of ipv2.measures.error_spectrum."""

import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures.error_spectrum import error_frequencies, error_spectrum


def _found(difference: np.ndarray, body: np.ndarray, pixel_mm: float = 1.0):
    pixels = jnp.full(difference.shape[:1], pixel_mm)
    found = error_frequencies(jnp.asarray(difference), jnp.asarray(body), pixels)
    return {key: np.asarray(value) for key, value in found.items()}


@pytest.mark.slow
def test_a_wave_has_its_own_frequency():
    x = np.arange(128)
    wave = np.broadcast_to(20 * np.sin(2 * np.pi * x / 8), (1, 128, 128))
    found = _found(wave.astype(np.float32), np.ones((1, 128, 128), bool), pixel_mm=0.5)
    # 1/8 a pixel is 1/4 a mm; the taper spreads it by one ring, 1/32 a pixel.
    assert found["peak_per_mm"] == pytest.approx(0.25, abs=0.01)
    assert found["mean_per_mm"] == pytest.approx(0.25, abs=0.02)


@pytest.mark.slow
def test_white_noise_has_the_mean_frequency_of_a_disc():
    noise = np.random.default_rng(0).standard_normal((1, 512, 512)).astype(np.float32)
    found = _found(noise, np.ones(noise.shape, bool))
    # The mean radius of a disc up to Nyquist is 2/3 of 1/2. The trend takes away the
    # lowest two or three rings of 16: without three it is 0.344.
    assert 1 / 3 < found["mean_per_mm"] < 0.346


@pytest.mark.slow
def test_only_patches_within_the_body_count():
    rng = np.random.default_rng(1)
    fine = rng.standard_normal((1, 128, 128)).astype(np.float32)
    body = np.zeros(fine.shape, bool)
    body[:, :64] = True
    coarse = np.broadcast_to(50 * np.sin(np.arange(128) / 4), fine.shape)
    both = np.where(body, fine, coarse).astype(np.float32)
    assert _found(both, body)["mean_per_mm"] == pytest.approx(
        _found(fine, body)["mean_per_mm"], abs=1e-6
    )


@pytest.mark.slow
def test_without_a_patch_there_is_no_number():
    found = _found(np.zeros((2, 64, 64), np.float32), np.zeros((2, 64, 64), bool))
    assert np.isnan(found["peak_per_mm"]).all() and np.isnan(found["mean_per_mm"]).all()


@pytest.mark.slow
def test_the_spectrum_of_white_noise_is_flat_and_has_its_variance():
    sigma, pixel_mm = 20.0, 0.5
    noise = sigma * np.random.default_rng(2).standard_normal((2, 512, 512))
    body = np.ones(noise.shape, bool)
    body[1] = False
    found = error_spectrum(
        jnp.asarray(noise, jnp.float32), jnp.asarray(body), jnp.full(2, pixel_mm)
    )
    frequency, power = (np.asarray(found[key]) for key in found)
    assert frequency.shape == power.shape == (2, 16)
    # The first ring has four places at 1/32 a pixel, and four at sqrt(2)/32.
    assert frequency[0, 0] == pytest.approx((1 + np.sqrt(2)) / 2 / 16)
    # The last one lies around Nyquist, 1 a mm.
    assert frequency[0, -1] == pytest.approx(1.0, rel=0.02)
    # 961 patches and more than 20 places a ring; the trend takes the lowest three.
    np.testing.assert_allclose(power[0, 3:], (sigma * pixel_mm) ** 2, rtol=0.05)
    assert np.isnan(frequency[1]).all() and np.isnan(power[1]).all()


def test_frequencies_are_those_of_the_spectrum():
    noise = np.random.default_rng(3).standard_normal((1, 128, 128)).astype(np.float32)
    body, pixel = jnp.ones(noise.shape, bool), jnp.full(1, 0.8)
    numbers = error_frequencies(jnp.asarray(noise), body, pixel)
    found = error_spectrum(jnp.asarray(noise), body, pixel)
    frequency, power = (np.asarray(found[key])[0] for key in found)
    assert frequency[np.argmax(power)] == pytest.approx(
        float(numbers["peak_per_mm"][0])
    )
    mean = power @ frequency**2 / (power @ frequency)
    assert mean == pytest.approx(float(numbers["mean_per_mm"][0]), rel=1e-5)
