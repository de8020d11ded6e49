"""Tests of ipv2.measures.sharpness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from ipv2.measures.sharpness import (
    RISE_OF_SIGMA,
    edge_profiles,
    edge_rises_mm,
    sample_cubic,
)

_rises = jax.jit(edge_rises_mm)


Y, X = np.mgrid[:256, :256] - 127.7
# The lung of `_chest`, vessels included.
CHEST = np.hypot(X, Y) < 80


def _edge(signed_px: np.ndarray, sigma_px: float) -> np.ndarray:
    """A step from -850 to 40 HU, blurred by a Gaussian."""
    share = 0.5 * (1 + erf(signed_px / (np.sqrt(2) * sigma_px)))
    return (-850 + 890 * share).astype(np.float32)


def _straight(angle_rad: float, sigma_px: float) -> np.ndarray:
    y, x = np.mgrid[:96, :96] - 47.3
    return _edge(x * np.cos(angle_rad) + y * np.sin(angle_rad), sigma_px)


def _chest(sigma_px: float) -> np.ndarray:
    """A lung of 160 pixels with three vessels, 14 to 20 pixels wide."""
    hu = _edge(np.hypot(X, Y) - 80, sigma_px)
    for cx, cy, radius in ((-30, 0, 10), (20, 30, 8), (25, -35, 7)):
        hu += _edge(radius - np.hypot(X - cx, Y - cy), sigma_px) + 850
    return hu


def _measured(image: np.ndarray, truth: np.ndarray, pixel_mm, lung=CHEST):
    found = _rises(
        jnp.asarray(image, jnp.float32),
        jnp.asarray(truth, jnp.float32),
        jnp.asarray(lung),
        jnp.asarray(pixel_mm, jnp.float32),
    )
    return jax.tree.map(np.asarray, found)


@pytest.mark.slow
@pytest.mark.parametrize("noise_hu", [0, 40])
def test_straight_edges_have_the_rise_of_their_gaussian(noise_hu):
    angles = np.deg2rad([0, 17, 45, 73, 90, 200])
    pixel_mm = np.array([0.5, 0.6, 0.7, 0.8, 1.0, 1.4])
    truth = np.stack([_straight(angle, 1.0) for angle in angles])
    # Blurring by 1.5 adds variances.
    wide = np.hypot(1.0, 1.5)
    image = np.stack([_straight(angle, wide) for angle in angles])
    image += noise_hu * np.random.default_rng(0).standard_normal(image.shape)
    found = _measured(image, truth, pixel_mm, truth < -405)["pleura"]
    # Cubic convolution widens an edge of 1 pixel by 2 %.
    np.testing.assert_allclose(
        found["truth_rise_mm"], RISE_OF_SIGMA * pixel_mm, rtol=0.03
    )
    # Without noise, profiles near corners of 45 degrees add 1.5 %. Some 90 profiles of
    # 890 HU: noise of 40 HU leaves 4 HU of it, 0.5 %, at each
    # level, where the edge rises 0.5 % in 0.05 pixels of 4.6.
    np.testing.assert_allclose(
        found["rise_mm"],
        RISE_OF_SIGMA * wide * pixel_mm,
        rtol=0.05 if noise_hu else 0.02,
    )


@pytest.mark.slow
@pytest.mark.parametrize("noise_hu", [0, 40])
def test_vessels_and_pleura_of_a_chest_widen_as_variances_add(noise_hu):
    truth, image = _chest(0.8), _chest(np.hypot(0.8, 1.0))
    image += noise_hu * np.random.default_rng(1).standard_normal(image.shape)
    found = _measured(image, truth, 0.7)
    expected = RISE_OF_SIGMA * 0.7 * np.array([0.8, np.hypot(0.8, 1.0)])
    for name, edges in found.items():
        assert edges["points"] > 300, name
        rises = [edges["truth_rise_mm"], edges["rise_mm"]]
        # 4 % of the sampling; noise of 40 HU where vessels' profiles meet.
        np.testing.assert_allclose(rises, expected, rtol=0.06, err_msg=name)


def test_equal_images_have_equal_rises_whatever_else_they_hold():
    truth = _chest(1.0)
    truth += 300 * (np.hypot(X, Y + 98) < 12) + 20 * np.sin(X / 3)
    found = _measured(truth, truth, 1.0)
    for edges in found.values():
        assert edges["rise_mm"] == edges["truth_rise_mm"] > 0


def test_a_change_of_contrast_or_level_changes_no_rise():
    truth = _chest(1.0)
    found = _measured(0.7 * truth - 50, truth, 1.0)
    for edges in found.values():
        # Float32 sums of HU.
        assert edges["rise_mm"] == pytest.approx(edges["truth_rise_mm"], rel=1e-4)


@pytest.mark.slow
def test_without_enough_edges_there_is_no_number():
    truth = np.stack([_chest(1.0), np.full((256, 256), -850, np.float32)])
    lung = np.stack([CHEST, np.zeros((256, 256), bool)])
    found = _measured(truth, truth, np.ones(2), lung)
    for edges in found.values():
        assert edges["points"][0] >= 20 and edges["points"][1] == 0
        assert np.isfinite(edges["rise_mm"]).tolist() == [True, False]


@pytest.mark.slow
def test_cubic_samples_are_exact_for_parabolas():
    y, x = np.mgrid[:9, :11].astype(np.float32)

    def parabola(y, x):
        return 3 + x - 2 * y + 0.5 * x * x - x * y + y * y

    rng = np.random.default_rng(0)
    row, column = rng.uniform(1, 7, 50), rng.uniform(1, 9, 50)
    found = sample_cubic(
        *(jnp.asarray(a, jnp.float32) for a in (parabola(y, x), row, column))
    )
    # Float32 on values up to 100.
    np.testing.assert_allclose(found, parabola(row, column), atol=1e-4)


@pytest.mark.slow
def test_profiles_are_those_of_the_edge_and_nan_where_there_are_too_few():
    truth, image = _chest(1.0), _chest(2.0)
    truth, image = (np.stack([a, np.full_like(a, -850)]) for a in (truth, image))
    lung = np.stack([CHEST, np.zeros_like(CHEST)])
    found = jax.jit(edge_profiles)(
        *(jnp.asarray(a, jnp.float32) for a in (image, truth)), jnp.asarray(lung)
    )
    for name, one in found.items():
        assert one.image_hu.shape == one.truth_hu.shape == (2, len(one.at_px)), name
        middle = int(np.argmin(np.abs(one.at_px)))
        # Half of the rise of 890 HU from -850; round edges bend it by 2 % of that.
        assert one.truth_hu[0, middle] == pytest.approx(-405, abs=0.02 * 890)
        slopes = [np.gradient(hu[0], one.at_px)[middle] for hu in one[1:3]]
        # A Gaussian's: 890 / (sqrt(2 pi) sigma), less at vessels that are narrow.
        assert slopes[1] == pytest.approx(890 / np.sqrt(2 * np.pi), rel=0.06)
        assert slopes[0] == pytest.approx(slopes[1] / 2, rel=0.1)
        assert np.isnan(one.image_hu[1]).all() and one.points[1] == 0
