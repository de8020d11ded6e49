"""Tests of ipv2.measures.error_spectrum."""

import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures.error_spectrum import error_frequencies


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
