"""Tests of ipv2.measures.nodules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures.nodules import (
    EMPTY,
    NODULES,
    Nodule,
    draw_nodules,
    patch_half_px,
    place_masks,
)

LUNG = NODULES["lung"]
HALF = 5


def _mask(size: int = 96) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2
    return np.hypot(x, y) < size / 2 - 2


def _draw(seed: int = 0, count: int = 10, slices: int = 6, nodules=LUNG):
    mask = jnp.asarray(np.stack([_mask()] * slices))
    return draw_nodules(jax.random.key(seed), mask, nodules, count=count, half_px=HALF)


def test_the_kinds_are_ground_glass_part_solid_solid_and_low_contrast():
    assert {n.hu for n in LUNG} == {-600, -100, 100}
    assert {n.diameter_mm for n in LUNG} == {4, 6, 10}
    assert {n.hu for n in NODULES["soft"]} == {-20, 15}
    assert str(LUNG[0]) == "4 mm of -600 HU"
    assert str(Nodule(diameter_mm=10, hu=15, shape="disc")) == "10 mm, +15 HU"


@pytest.mark.slow
def test_places_lie_in_the_mask_and_patches_do_not_overlap():
    drawn = _draw()
    assert np.asarray(drawn.found).all()
    for centres in np.asarray(drawn.centre_px):
        assert _mask()[tuple(centres.T)].all()
        assert centres.min() >= HALF and centres.max() < 96 - HALF
        apart = np.abs(centres[:, None] - centres[None]).max(-1)
        assert apart[~np.eye(len(centres), dtype=bool)].min() > 2 * HALF


@pytest.mark.slow
def test_places_are_uniform_over_the_mask():
    mask = jnp.asarray(np.stack([_mask()] * 200))
    drawn = draw_nodules(jax.random.key(3), mask, LUNG, count=2, half_px=HALF)
    first = np.asarray(drawn.centre_px)[:, 0]
    inside = np.argwhere(_mask()[HALF:-HALF, HALF:-HALF]) + HALF
    for axis in (0, 1):
        # Standard error of a mean of 200.
        reach = 3 * inside[:, axis].std() / np.sqrt(200)
        assert abs(first[:, axis].mean() - inside[:, axis].mean()) < reach


@pytest.mark.slow
def test_half_of_the_places_are_empty_and_kinds_are_even():
    drawn = _draw(count=18, slices=2)
    for kind, diameter, hu in zip(
        np.asarray(drawn.kind),
        np.asarray(drawn.diameter_mm),
        np.asarray(drawn.hu),
        strict=True,
    ):
        present = kind != EMPTY
        assert sorted(kind[present]) == list(range(9))
        np.testing.assert_array_equal(
            diameter[present], [LUNG[k].diameter_mm for k in kind[present]]
        )
        np.testing.assert_array_equal(hu[present], [LUNG[k].hu for k in kind[present]])
        assert not diameter[~present].any()


@pytest.mark.slow
def test_a_full_mask_says_which_places_were_not_found():
    mask = np.zeros((2, 40, 40), bool)
    mask[0, 18:22, 18:22] = True
    drawn = draw_nodules(
        jax.random.key(0), jnp.asarray(mask), LUNG, count=4, half_px=HALF
    )
    assert np.asarray(drawn.found).sum(-1).tolist() == [1, 0]
    # Their patches can be cut all the same.
    assert np.asarray(drawn.centre_px).min() >= HALF


@pytest.mark.slow
def test_a_slices_draw_depends_on_its_key_alone_and_can_be_compiled():
    keys = jax.random.split(jax.random.key(5), 3)
    mask = jnp.asarray(np.stack([_mask()] * 3))
    together = draw_nodules(keys, mask, LUNG, count=6, half_px=HALF)
    compiled = jax.jit(lambda k, m: draw_nodules(k, m, LUNG, count=6, half_px=HALF))
    alone = compiled(keys[1:2], mask[1:2])
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[1:2], np.asarray(b))


@pytest.mark.slow
def test_the_place_masks_leave_out_edges_vessels_and_other_tissue():
    y, x = np.mgrid[:192, :192] - 96.0
    truth = np.where(np.hypot(x, y) < 90, 40.0, -1000.0)
    lung = np.hypot(x, y) < 40
    truth = np.where(lung, -850.0, truth)
    truth[92:100, 92:100] = 40
    masks = place_masks(jnp.asarray(truth, jnp.float32), jnp.asarray(lung), 6)
    radius = np.hypot(x, y)
    places = np.asarray(masks["lung"])
    assert places.any() and radius[places].max() < 36
    assert not places[92:100, 92:100].any()
    soft = radius[np.asarray(masks["soft"])]
    # 6 pixels, and what the smoothing carries over the edge.
    assert len(soft) and 46 < soft.min() < 58 and 72 < soft.max() < 84


def test_a_patch_holds_the_largest_nodule_and_its_neighbourhood():
    assert patch_half_px(LUNG, 0.7, 0.8) == int(np.ceil(1.5 * 5 / 0.7 + 3 * 0.8))
    with pytest.raises(ValueError, match="0 mm"):
        patch_half_px(LUNG, 0)


def test_wrong_kinds_and_sizes_are_refused():
    with pytest.raises(ValueError, match="diameter_mm: got 0"):
        Nodule(diameter_mm=0, hu=-600)
    with pytest.raises(ValueError, match="contrast other than 0"):
        Nodule(diameter_mm=5, hu=0, shape="disc")
    mask = jnp.ones((10, 10), bool)
    with pytest.raises(ValueError, match="no patch of 11 pixels"):
        draw_nodules(jax.random.key(0), mask, LUNG, count=2, half_px=5)
    with pytest.raises(ValueError, match="0 nodules"):
        draw_nodules(jax.random.key(0), mask, (), count=2, half_px=2)
