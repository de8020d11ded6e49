"""Tests of ipv2.measures.removed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from ipv2.measures import removed
from ipv2.measures.removed import CHANCE_RATE, TILE_PX, Z_THRESHOLD
from tests.oracles.thorax import thorax

_edges, _map = jax.jit(removed.removed_edges), jax.jit(removed.removed_map)
SLICES, SIZE = 6, 320
TRUTH = ndimage.gaussian_filter(thorax(SIZE).hu, 0.8)


def _noise(correlation_px: float, sd_hu: float = 30) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((SLICES, SIZE, SIZE))
    if correlation_px:
        noise = ndimage.gaussian_filter(noise, (0, correlation_px, correlation_px))
    return noise * (sd_hu / noise.std())


def _images(residual: np.ndarray) -> list[jax.Array]:
    """Input, output and truth where the residual was removed."""
    truth = np.broadcast_to(TRUTH, residual.shape)
    return [jnp.asarray(a, jnp.float32) for a in (truth + residual, truth, truth)]


def _audit(residual: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    images = _images(residual)
    return jax.tree.map(np.asarray, (_edges(*images), _map(*images)))


def test_the_threshold_is_that_of_students_t():
    assert Z_THRESHOLD == pytest.approx(stats.t(24).isf(CHANCE_RATE), abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("correlation_px", [0, 1.5])
def test_pure_noise_shows_no_more_than_chance(correlation_px):
    numbers, z = _audit(_noise(correlation_px))
    tested = z[np.isfinite(z)]
    assert tested.size > 2000
    # A rate of 0.001 on 3000 tiles: 3 are expected, and 10 or more have a chance of
    # 0.001. The same holds for the other side.
    for side in (1, -1):
        assert np.sum(side * tested > Z_THRESHOLD) < 10
    # Mean of Student's squares, 24 / 22; and the local deviation's own scatter.
    assert np.mean(tested**2) == pytest.approx(24 / 22, rel=0.1)
    t = numbers["correlation"] / numbers["correlation_by_chance"]
    assert np.abs(t).max() < stats.t(24).isf(CHANCE_RATE / SLICES)
    assert numbers["tiles_share"].mean() < 0.004
    # Edges of 200 HU a pixel, noise of some 10: 0.05 / sqrt(3000 pixels).
    np.testing.assert_allclose(numbers["slope_share"], 0, atol=0.005)
    excess = (
        numbers["magnitude_correlation"] - numbers["magnitude_correlation_by_chance"]
    )
    # Magnitudes of noise smoothed by 1.8 pixels are alike within some 40 pixels, so
    # that 320 x 320 hold 2500 of them: a deviation of 0.02, times 3.
    np.testing.assert_allclose(excess, 0, atol=0.06)


@pytest.mark.slow
def test_removed_edges_are_found_where_they_were():
    blurred = ndimage.gaussian_filter(TRUTH, 1.0)
    left = np.arange(SIZE) < SIZE // 2
    residual = _noise(0.7, sd_hu=20) + np.where(left, TRUTH - blurred, 0)
    numbers, z = _audit(residual)
    middle = SIZE // 2 // TILE_PX
    found = z > Z_THRESHOLD
    tested = np.isfinite(z)
    # The tile at the cut sees a part of the blurred half.
    beyond = np.s_[..., middle + 1 :]
    assert np.sum(found[..., :middle]) > 0.2 * np.sum(tested[..., :middle])
    assert np.sum(found[beyond]) <= 0.005 * np.sum(tested[beyond])
    t = numbers["correlation"] / numbers["correlation_by_chance"]
    assert t.min() > Z_THRESHOLD
    assert np.all(
        numbers["magnitude_correlation"]
        > numbers["magnitude_correlation_by_chance"] + 0.05
    )


@pytest.mark.slow
def test_the_share_is_what_was_removed_and_sharpening_has_the_other_sign():
    noise = _noise(0.7)[:2]
    share = np.array([0.1, -0.1])[:, None, None]
    numbers, z = _audit(noise + share * TRUTH)
    # Noise: see above.
    np.testing.assert_allclose(numbers["slope_share"], [0.1, -0.1], atol=0.005)
    assert np.sum(z[0] > Z_THRESHOLD) > 30 and np.sum(z[0] < -Z_THRESHOLD) <= 2
    assert np.sum(z[1] < -Z_THRESHOLD) > 30 and np.sum(z[1] > Z_THRESHOLD) <= 2


@pytest.mark.slow
def test_a_constant_residual_where_noise_changes_is_no_edge():
    # Twice the noise in soft tissue, and a bias: neither is anatomy that was removed.
    residual = _noise(0.7) * np.where(TRUTH > -300, 2, 1) + 50
    numbers, z = _audit(residual)
    assert np.mean(z[np.isfinite(z)] > Z_THRESHOLD) < 0.008
    np.testing.assert_allclose(numbers["slope_share"], 0, atol=0.01)


@pytest.mark.slow
def test_without_edges_or_residual_there_is_no_number():
    noise, flat = jnp.asarray(_noise(0)[:2], jnp.float32), jnp.zeros((2, SIZE, SIZE))
    for images in ((noise, flat, flat), _images(np.zeros((2, SIZE, SIZE)))):
        assert np.isnan(np.asarray(list(_edges(*images).values()))).all()
        assert np.isnan(np.asarray(_map(*images))).all()
    small = jnp.zeros((95, 128))
    with pytest.raises(ValueError, match=r"at least 96 pixels .* got \(95, 128\)"):
        removed.removed_map(small, small, small)
