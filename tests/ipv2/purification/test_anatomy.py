"""Anatomy of a NumPy thorax with known truth, including four difficult cases."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.purification.anatomy import AnatomyParams, segment
from tests.oracles.thorax import thorax

SIZE = 256


def _corner_mark(hu):
    hu[4:40, 4:60] = 1000.0
    hu[0:3, 0:3] = 1000.0


def _table_line(hu):
    row = int(0.92 * SIZE)
    hu[row : row + 2] = 300.0


def _nothing(hu):
    del hu


CASES = {
    "plain": (_nothing, {}),
    "corner mark": (_corner_mark, {}),
    "table line": (_table_line, {}),
    "touches both sides": (_nothing, {"width": 0.52}),
    "thin wall": (_nothing, {"wall": 0.025}),
}


def _errors(found, truth):
    """Returns false lung in % of pixels, and lost lung in % of the lung."""
    lung = np.asarray(found)
    false = 100 * (lung & ~truth.lung).mean()
    lost = 100 * (truth.lung & ~lung).sum() / truth.lung.sum()
    return false, lost


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("noise", [0.0, 110.0, 250.0])
def test_false_and_lost_lung_stay_within_bounds(case, noise):
    change, options = CASES[case]
    truth = thorax(SIZE, **options)
    hu = truth.hu.copy()
    change(hu)
    hu += np.random.default_rng(0).normal(0, noise, hu.shape).astype(np.float32)
    false, lost = _errors(segment(jnp.asarray(hu)).lung, truth)
    # The bounds are the specification's.
    assert false < 0.5
    assert lost < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 100.0])
def test_walls_that_the_opening_cuts_still_hold_the_lung(noise):
    """The wall has four pixels, two on the working grid; the opening needs three."""
    truth = thorax(512)
    hu = truth.hu.copy()
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    near = cv2.dilate(truth.lung.astype(np.uint8), disc) > 0
    left = np.arange(512) < np.flatnonzero(truth.lung.any(0))[0] + 80
    hu[~near & left] = -1000.0
    hu += np.random.default_rng(2).normal(0, noise, hu.shape).astype(np.float32)
    false, lost = _errors(segment(jnp.asarray(hu)).lung, truth)
    assert false < 0.5
    assert lost < 2.0


def test_soft_tissue_window_and_noise_keep_the_lung():
    truth = thorax(512)
    noise = np.random.default_rng(1).normal(0, 250, truth.hu.shape)
    clipped = np.clip(truth.hu + noise, -160, 240).astype(np.float32)
    false, lost = _errors(segment(jnp.asarray(clipped)).lung, truth)
    assert false < 0.5
    assert lost < 2.0


def test_trachea_and_table_are_not_lung_and_table_is_outside():
    truth = thorax(SIZE)
    found = segment(jnp.asarray(truth.hu))
    airway = (truth.hu == -1000) & truth.body
    assert airway.sum() > 50
    assert not (np.asarray(found.lung) & airway).any()
    table = (truth.hu == 100) & ~truth.body
    assert table.sum() > 50
    assert np.asarray(found.outside)[table].all()
    # The contour may be off by a pixel: the edge pixels of the body are fat.
    wrong = np.asarray(found.outside) != ~truth.body
    assert wrong.mean() < 0.005


@pytest.mark.slow
def test_volume_drops_gas_that_no_neighbour_shares():
    slices = np.stack([thorax(SIZE).hu] * 4)
    gas = np.s_[0, 140:160, 120:134]
    slices[gas] = -880.0
    flat = np.asarray(segment(jnp.asarray(slices)).lung)
    deep = np.asarray(segment(jnp.asarray(slices), AnatomyParams(volume=True)).lung)
    assert flat[gas].mean() > 0.9
    assert not deep[gas].any()
    np.testing.assert_array_equal(deep[1:], flat[1:])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (7, 31), (33, 20), (100, 257)])
def test_constant_images_of_any_size(shape):
    air = segment(jnp.full((2, *shape), -1000.0))
    assert np.asarray(air.outside).all() and not np.asarray(air.lung).any()
    tissue = segment(jnp.full((2, *shape), 40.0))
    assert not np.asarray(tissue.outside).any() and not np.asarray(tissue.lung).any()


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 131])
def test_small_and_odd_sizes_find_the_lungs(size):
    truth = thorax(size, wall=0.09)
    false, lost = _errors(segment(jnp.asarray(truth.hu)).lung, truth)
    # At 64 pixels, a rim of one pixel is 5 % of the lung.
    assert false < 0.5
    assert lost < 5.0


def test_refuses_thresholds_out_of_order():
    with pytest.raises(ValueError, match="-1000 < gas_hu < air_hu < 0"):
        AnatomyParams(air_hu=-950.0)
