"""Masks in 3-D on a small chest whose trachea no threshold of a slice can find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.purification.anatomy import (
    AnatomyParams,
    find_air,
    find_lungs,
    segment,
    segment_words,
)
from tests.oracles.thorax import thorax

SIZE = 256
NECK, ABDOMEN, SLICES = 3, 3, 12
DEEP = AnatomyParams(volume=True)


def _ellipse(cy, cx, ry, rx):
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - 0.5
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


TRACHEA = _ellipse(-0.12, 0.055, 0.024, 0.024)
CORE = _ellipse(-0.12, 0.05, 0.014, 0.014)
GAS = _ellipse(-0.1, 0.14, 0.05, 0.06)


def _chest(*, noise=0.0, lung_hu=-860.0, trachea_hu=-920.0):
    """(hu, lung): slices from the abdomen to the neck; the trachea touches a lung."""
    one = thorax(SIZE, trachea=False)
    hu = np.stack([one.hu] * SLICES)
    lung = np.stack([one.lung] * SLICES)
    lung[:ABDOMEN] = lung[-NECK:] = False
    inside = np.stack([one.hu == -860] * SLICES)
    hu[inside] = 40.0
    hu[lung] = lung_hu
    hu[ABDOMEN + 1 :, TRACHEA] = trachea_hu
    lung[ABDOMEN + 1 :, TRACHEA] = False
    # The gas of the stomach lies below a lung, behind the diaphragm.
    hu[: ABDOMEN - 1, GAS] = -870.0
    rng = np.random.default_rng(0)
    return (hu + rng.normal(0, noise, hu.shape)).astype(np.float32), lung


def _lung(hu, params):
    return np.asarray(segment(jnp.asarray(hu), params).lung)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "trachea_hu"), [(0, -920), (30, -920), (80, -975)])
def test_trachea_and_bowel_gas_leave_the_lungs_and_no_lung_is_lost(noise, trachea_hu):
    hu, lung = _chest(noise=noise, trachea_hu=trachea_hu)
    flat, deep = _lung(hu, AnatomyParams()), _lung(hu, DEEP)
    trachea, gas = np.s_[ABDOMEN + 1 :, TRACHEA], np.s_[: ABDOMEN - 1, GAS]
    assert flat[trachea].mean() > 0.4 and flat[gas].mean() > 0.9
    # Some of the edge that the trachea shares with the lung stays.
    assert deep[trachea].mean() < 0.15 and not deep[gas].any()
    assert not deep[ABDOMEN + 1 :, CORE].any()
    assert (lung & ~deep).sum() < 0.01 * lung.sum()


@pytest.mark.slow
def test_the_order_of_slices_and_slices_without_air_change_nothing():
    hu, _ = _chest(noise=30)
    deep = _lung(hu, DEEP)
    np.testing.assert_array_equal(_lung(hu[::-1].copy(), DEEP), deep[::-1])
    tissue = np.full((21, *hu.shape[1:]), 40.0, np.float32)
    more = _lung(np.concatenate([hu, tissue]), DEEP)
    np.testing.assert_array_equal(more[: len(hu)], deep)
    assert not more[len(hu) :].any()


@pytest.mark.slow
def test_emphysema_and_a_bulla_stay_lung():
    """In 2-D, lungs of -955 HU are gas."""
    hu, lung = _chest(lung_hu=-955.0, trachea_hu=-1000.0)
    bulla = np.zeros_like(lung)
    bulla[5:8] = _ellipse(0.0, 0.25, 0.08, 0.08)
    bulla &= lung
    hu[bulla] = -995.0
    assert (lung & ~_lung(hu, AnatomyParams())).sum() > 0.9 * lung.sum()
    deep = _lung(hu, DEEP)
    assert (lung & ~deep).sum() < 0.01 * lung.sum() and deep[bulla].all()
    assert not deep[ABDOMEN + 1 :, CORE].any()


@pytest.mark.slow
def test_a_clipped_volume_keeps_its_lungs():
    """A soft-tissue window leaves no gas to tell from lung."""
    hu, lung = _chest()
    clipped = np.clip(hu, -160, 240)
    flat, deep = _lung(clipped, AnatomyParams()), _lung(clipped, DEEP)
    np.testing.assert_array_equal(deep[lung], flat[lung])


@pytest.mark.slow
@pytest.mark.parametrize("value", [-1000.0, 40.0])
def test_volumes_without_a_chest_have_no_lungs(value):
    assert not _lung(np.full((3, 40, 33), value, np.float32), DEEP).any()


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("size", [5, pytest.param(SLICES, marks=pytest.mark.long)])
def test_slices_found_in_parts_give_the_same_bits(size):
    hu, _ = _chest(noise=80)
    parts = [
        find_air((jnp.asarray(hu[start : start + size]),), DEEP)
        for start in range(0, SLICES, size)
    ]
    joined = jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=1), *parts)
    lungs = find_lungs(joined, DEEP)
    whole = segment_words((jnp.asarray(hu),), DEEP)
    for start in range(0, SLICES, size):
        part = slice(start, start + size)
        own = segment_words((jnp.asarray(hu[part]),), DEEP, lungs[:, part])
        np.testing.assert_array_equal(own.lung, whole.lung[:, part])
        np.testing.assert_array_equal(own.outside, whole.outside[:, part])
