"""Tests of ipv2.measures.observer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ipv2.measures.nodules import EMPTY, Nodule
from ipv2.measures.observer import (
    CHANNELS,
    channel_outputs,
    channel_widths_mm,
    detectability,
    detectability_by_kind,
    laguerre_gauss,
)

HALF, SPACING, DIAMETER = 14, 0.7, 6.0
SIDE = 2 * HALF + 1


def _distance() -> np.ndarray:
    axis = np.arange(-HALF, HALF + 1) * SPACING
    return np.hypot(axis[:, None], axis[None])


def _templates() -> np.ndarray:
    """(channels, pixels), as `channel_outputs` weighs pixels."""
    channels = np.asarray(laguerre_gauss(_distance(), DIAMETER), np.float64)
    return channels.reshape(CHANNELS, -1) * SPACING**2


def _power(coloured: bool, sd: float) -> np.ndarray:
    """Power of periodic noise at each frequency; its mean is sd^2."""
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    power = (f + 0.02) * np.exp(-((f / 0.25) ** 2)) if coloured else np.ones_like(f)
    return sd**2 * power / power.mean()


def _noise(rng, count: int, power: np.ndarray) -> np.ndarray:
    white = np.fft.fft2(rng.normal(size=(count, SIDE, SIDE)))
    return np.real(np.fft.ifft2(white * np.sqrt(power)))


def _closed_form(signal: np.ndarray, power: np.ndarray) -> float:
    """d' of the channels, from the noise's covariance."""
    u = _templates()
    smoothed = np.fft.fft2(u.reshape(-1, SIDE, SIDE)) * power
    covariance = u @ np.real(np.fft.ifft2(smoothed)).reshape(len(u), -1).T
    mean = u @ signal.ravel()
    return float(np.sqrt(mean @ np.linalg.solve(covariance, mean)))


@pytest.mark.slow
@pytest.mark.parametrize("coloured", [False, True])
def test_d_prime_is_the_closed_form_in_gaussian_noise(coloured):
    rng = np.random.default_rng(0)
    signal = 20.0 * (_distance() < DIAMETER / 2)
    power = _power(coloured, 40)
    noise = _noise(rng, 3000, power).astype(np.float32)
    noise[:1500] += signal.astype(np.float32)
    outputs = channel_outputs(jnp.asarray(noise), SPACING, [DIAMETER])
    outputs = np.asarray(outputs)[:, 0]
    found = detectability(outputs[:1500], outputs[1500:])
    expected = _closed_form(signal, power)
    # The standard error of d' is about sqrt((1 / m + 1 / n)(1 + d'^2 / 8)): 0.05.
    assert found.value == pytest.approx(expected, abs=0.15)
    assert found.low < expected < found.high


def test_white_noise_costs_the_channels_little():
    signal = ndimage.gaussian_filter(1.0 * (_distance() < DIAMETER / 2), 0.8)
    ideal = np.sqrt(np.sum(signal**2))
    assert 0.98 * ideal < _closed_form(signal, _power(False, 1)) < ideal


def _samples(rng, m: int, n: int, d: float, p: int = CHANNELS):
    present, absent = rng.normal(size=(m, p)), rng.normal(size=(n, p))
    present[:, 0] += d
    return present, absent


@pytest.mark.slow
@pytest.mark.parametrize("d", [0.0, 1.0, 3.0])
def test_few_places_give_no_bias_and_the_interval_holds(d):
    rng = np.random.default_rng(1)
    squares, held = [], []
    for _ in range(300):
        present, absent = _samples(rng, 20, 40, d)
        found = detectability(present, absent)
        sampled = detectability_by_hand(present, absent)
        squares.append(
            (58 - 6) / 58 * sampled - CHANNELS * (1 / 20 + 1 / 40),
        )
        assert found.value == pytest.approx(np.sqrt(max(squares[-1], 0)))
        held.append(found.low <= d <= found.high)
    assert abs(np.mean(squares) - d**2) < 3 * np.std(squares) / np.sqrt(300)
    # 95 % of 300, 3 standard errors of 1.26 %.
    assert np.mean(held) > 0.912
    if d == 3:
        assert np.mean(held) < 0.988


def detectability_by_hand(present: np.ndarray, absent: np.ndarray) -> float:
    m, n = len(present), len(absent)
    pooled = (m - 1) * np.cov(present.T) + (n - 1) * np.cov(absent.T)
    signal = present.mean(0) - absent.mean(0)
    return signal @ np.linalg.inv(pooled / (m + n - 2)) @ signal


def test_d_prime_does_not_depend_on_the_channels_units():
    rng = np.random.default_rng(2)
    present, absent = _samples(rng, 30, 30, 2.0)
    mix = rng.normal(size=(CHANNELS, CHANNELS))
    one = detectability(present, absent)
    other = detectability(present @ mix, absent @ mix)
    np.testing.assert_allclose(one[:3], other[:3], rtol=1e-6)


@pytest.mark.slow
def test_the_channels_are_orthonormal():
    axis = np.arange(-90, 91) * 0.25
    grid = np.hypot(axis[:, None], axis[None])
    u = np.asarray(laguerre_gauss(grid, 8.0), np.float64).reshape(CHANNELS, -1)
    # A sum instead of an integral, in float32.
    np.testing.assert_allclose(u @ u.T * 0.25**2, np.eye(CHANNELS), atol=1e-4)
    assert laguerre_gauss(grid, 8.0, 1).shape == (1, *grid.shape)


@pytest.mark.slow
def test_slices_have_spacings_of_their_own_and_outputs_compile():
    patches = np.random.default_rng(3).normal(size=(2, 3, 9, 9)).astype(np.float32)
    patches = jnp.asarray(patches)
    both = channel_outputs(patches, np.array([0.5, 0.9]), (4.0, 6.0))
    assert both.shape == (2, 3, 2, CHANNELS)
    alone = jax.jit(lambda p: channel_outputs(p, 0.9, (4.0, 6.0)))(patches[1])
    # float32 sums of 81 products.
    np.testing.assert_allclose(np.asarray(both)[1], np.asarray(alone), atol=1e-5)


def test_each_kind_is_told_from_the_empty_places():
    rng = np.random.default_rng(4)
    kinds = (Nodule(diameter_mm=4, hu=-100), Nodule(diameter_mm=10, hu=-100))
    assert channel_widths_mm((*kinds, kinds[0])) == (4.0, 10.0)
    kind = np.tile([0, EMPTY, 1, EMPTY], (60, 1))
    found = np.ones(kind.shape, bool)
    outputs = rng.normal(size=(60, 4, 2, CHANNELS))
    outputs[:, 0, 0, 0] += 1
    outputs[:, 2, 1, 0] += 3
    # Places that were not found do not count.
    outputs[0, 0], found[0, 0] = 1e6, False
    d = detectability_by_kind(outputs, kind, found, kinds)
    assert d["4 mm of -100 HU"].present == 59
    assert d["4 mm of -100 HU"].absent == 120
    assert d["4 mm of -100 HU"].low < 1 < d["4 mm of -100 HU"].high
    assert d["10 mm of -100 HU"].low < 3 < d["10 mm of -100 HU"].high


@pytest.mark.parametrize("d", [10.0, 100.0])
def test_the_interval_of_a_large_d_prime_is_that_of_its_standard_error(d):
    found = detectability(*_samples(np.random.default_rng(7), 400, 400, d))
    # d'^2 varies by 2 d'^4 / v + 4 d'^2 (1 / m + 1 / n), to first order.
    error = np.sqrt(2 * d**4 / 798 + 4 * d**2 / 200) / (2 * d)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert found.low < found.value < found.high


def test_too_few_places_have_no_d_prime():
    rng = np.random.default_rng(5)
    assert detectability(*_samples(rng, 4, 4, 1))[:3] == (None, None, None)
    assert detectability(*_samples(rng, 5, 4, 1)).value is not None
    assert detectability(*_samples(rng, 1, 40, 1)).value is None


def test_wrong_outputs_are_refused():
    rng = np.random.default_rng(6)
    present, absent = _samples(rng, 20, 20, 1)
    with pytest.raises(ValueError, match="depend on each other"):
        detectability(present[:, [0, 0, 1]], absent[:, [0, 0, 1]])
    absent[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        detectability(present, absent)
    with pytest.raises(ValueError, match="0 channels"):
        laguerre_gauss(np.zeros(3), 1.0, 0)
