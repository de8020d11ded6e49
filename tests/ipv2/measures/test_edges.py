"""Tests of ipv2.measures.edges."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ipv2.measures.edges import edge_masks, edge_slopes


def _chest() -> tuple[np.ndarray, np.ndarray]:
    """A lung of 160 pixels with three vessels, smooth edges; and its mask."""
    y, x = np.mgrid[:256, :256] - 128.0
    lung = np.hypot(x, y) < 80
    truth = np.where(lung, -850.0, 40.0)
    for cx, cy in ((-30, 0), (20, 30), (25, -35)):
        truth[np.hypot(x - cx, y - cy) < 4] = 40
    return ndimage.gaussian_filter(truth, 0.7).astype(np.float32), lung


@pytest.mark.slow
def test_an_unchanged_image_has_slope_one():
    truth, lung = _chest()
    slopes = edge_slopes(*map(jnp.asarray, (truth, truth, lung)))
    assert {k: float(v) for k, v in slopes.items()} == pytest.approx(
        {"vessels": 1, "pleura": 1}, abs=1e-6
    )


@pytest.mark.slow
def test_a_blurred_edge_has_the_slope_of_a_wider_gaussian():
    truth, lung = _chest()
    blurred = ndimage.gaussian_filter(truth, 1.5)
    slopes = edge_slopes(*map(jnp.asarray, (blurred, truth, lung)))
    # Step edges, steepest where 1 / sqrt(2 pi sum of variances): 0.7, 1.0 and 1.5. The
    # mask takes flanks in, where the ratio is larger, so the closed form is a bound.
    bound = np.sqrt((0.7**2 + 1) / (0.7**2 + 1 + 1.5**2))
    assert bound < float(slopes["pleura"]) < bound + 0.2
    assert bound < float(slopes["vessels"]) < bound + 0.2


def test_noise_changes_no_slope():
    truth, lung = _chest()
    noise = 60 * np.random.default_rng(0).standard_normal(truth.shape)
    noisy = (truth + noise).astype(np.float32)
    slopes = edge_slopes(*map(jnp.asarray, (noisy, truth, lung)))
    # Smoothed noise has a slope of 60 / sqrt(8 pi) = 12 HU a pixel and the edges of
    # some 200, on 1,500 pixels of pleura, 100 of the vessels'.
    assert float(slopes["pleura"]) == pytest.approx(1, abs=0.01)
    assert float(slopes["vessels"]) == pytest.approx(1, abs=0.05)


def test_vessels_are_inside_and_pleura_at_the_outline():
    truth, lung = _chest()
    masks = edge_masks(jnp.asarray(truth), jnp.asarray(lung))
    y, x = np.mgrid[:256, :256] - 128.0
    radius = np.hypot(x, y)
    assert np.asarray(masks["vessels"]).any()
    assert radius[np.asarray(masks["vessels"])].max() < 70
    assert abs(radius[np.asarray(masks["pleura"])] - 80).max() < 4


@pytest.mark.slow
def test_without_a_lung_there_is_no_number():
    flat = jnp.zeros((64, 64))
    slopes = edge_slopes(flat, flat, jnp.zeros((64, 64), bool))
    assert all(np.isnan(float(value)) for value in slopes.values())
