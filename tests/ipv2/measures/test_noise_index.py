"""Tests of ipv2.measures.noise_index."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ipv2.measures import noise_index
from tests.oracles.thorax import thorax

noise_index_hu = jax.jit(noise_index.noise_index_hu)
SIZE = 384


def _white(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SIZE, SIZE))


def _gaussian_texture(sigma_px: float) -> np.ndarray:
    # Scaled by the filter's own gain, 1 / sqrt(4 pi sigma^2), not by this sample's.
    noise = ndimage.gaussian_filter(_white(), sigma_px, mode="wrap")
    return noise * np.sqrt(4 * np.pi) * sigma_px


def _backprojected() -> np.ndarray:
    """Noise whose power is that of a ramp filter under a Hann window."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE))
    window = 0.5 + 0.5 * np.cos(2 * np.pi * np.minimum(frequency, 0.5))
    response = np.sqrt(frequency) * window
    response /= np.sqrt(np.mean(response**2))
    return np.fft.ifft2(np.fft.fft2(_white()) * response).real


def _index(noise: np.ndarray, sd_hu: float) -> float:
    hu = thorax(SIZE).hu
    # Twice the noise in air and lung: it does not count.
    image = hu + sd_hu * noise * np.where(hu < -500, 2, 1)
    return float(noise_index_hu(jnp.asarray(image, jnp.float32)))


@pytest.mark.parametrize("sd_hu", [5.0, 40.0, 150.0])
def test_white_noise_has_its_deviation(sd_hu):
    # A window of 225 pixels scatters by 5 %, and the mode of the lower half of hundreds
    # by a part of this.
    assert _index(_white(), sd_hu) == pytest.approx(sd_hu, rel=0.03)


@pytest.mark.parametrize("sd_hu", [10.0, 60.0])
def test_noise_of_filtered_backprojection_has_its_deviation(sd_hu):
    assert _index(_backprojected(), sd_hu) == pytest.approx(sd_hu, rel=0.05)


@pytest.mark.parametrize("sigma_px", [1.0, 2.0])
def test_coarse_noise_loses_what_a_windows_mean_holds(sigma_px):
    # Of the variance, a window's mean takes the mean correlation of its pixels.
    y, x = np.mgrid[:15, :15].reshape(2, -1).astype(float)
    squares = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    lost = np.mean(np.exp(-squares / (4 * sigma_px**2)))
    found = _index(_gaussian_texture(sigma_px), 30.0)
    # A mode of the lower half of few independent values lies below their mean.
    assert 0.85 * np.sqrt(1 - lost) * 30 < found < 1.02 * np.sqrt(1 - lost) * 30


@pytest.mark.slow
def test_the_mode_is_that_of_a_plain_search():
    rng = np.random.default_rng(0)
    values = rng.gamma(4, 2, (3, 400)).astype(np.float32)
    used = rng.random((3, 400)) < [[0.3], [0.9], [0.1]]
    found = np.asarray(noise_index._mode(jnp.asarray(values), jnp.asarray(used)))
    for one, mask, mode in zip(values[:2], used[:2], found[:2], strict=True):
        ordered = sorted(one[mask].tolist())
        step = int(0.1 * len(ordered))
        lower = ordered[: int(0.5 * len(ordered))]
        pairs = zip(lower, lower[step:], strict=False)
        low, high = min(pairs, key=lambda pair: pair[1] - pair[0])
        assert mode == pytest.approx((low + high) / 2, rel=1e-6)
    assert np.isnan(found[2])


def test_slices_of_a_batch_do_not_mix_and_air_has_no_number():
    hu = thorax(SIZE).hu
    images = np.stack([hu + 20 * _white(), np.full_like(hu, -1000), hu + 80 * _white()])
    found = np.asarray(noise_index_hu(jnp.asarray(images, jnp.float32)))
    assert found[0] == pytest.approx(20, rel=0.04)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(80, rel=0.04)
    with pytest.raises(ValueError, match=r"at least 15x15, got \(14, 20\)"):
        noise_index.noise_index_hu(jnp.zeros((14, 20)))
