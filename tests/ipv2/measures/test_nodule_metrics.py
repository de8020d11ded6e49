"""Tests of ipv2.measures.nodule_metrics."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels.smoothing import gaussian
from ipv2.measures.nodule_insertion import insert_nodules
from ipv2.measures.nodule_metrics import (
    PROFILE_RADII,
    nodule_numbers,
    profile_diameter,
    summarise_nodules,
    summary_to_json,
)
from ipv2.measures.nodules import EMPTY, NODULES, DrawnNodules, Nodule, draw_nodules

HALF, SPACING = 16, 0.7
KINDS = (Nodule(diameter_mm=6, hu=-100), Nodule(diameter_mm=10, hu=-100))


@functools.cache
def _scene(nodules=KINDS, hu: float = -850.0, slices: int = 12, count: int = 8):
    """Returns (background, truth, drawn)."""
    return _draw(nodules, hu, slices, count)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _draw(nodules, hu: float, slices: int, count: int):
    background = jnp.full((slices, 160, 160), hu)
    mask = jnp.ones(background.shape, bool)
    drawn = draw_nodules(jax.random.key(0), mask, nodules, count=count, half_px=HALF)
    truth = _insert(background, drawn)
    return background, truth, drawn


@jax.jit
def _insert(background, drawn):
    return insert_nodules(background, drawn, SPACING, 0.8, half_px=HALF)


@jax.jit
def _numbers(image, truth, background, drawn):
    return nodule_numbers(image, truth, background, drawn, SPACING, half_px=HALF)


@pytest.mark.slow
def test_the_truth_keeps_everything():
    background, truth, drawn = _scene()
    numbers = _numbers(truth, truth, background, drawn)
    there = np.asarray(drawn.found & (drawn.kind != EMPTY))
    assert there.sum() == 48
    np.testing.assert_allclose(np.asarray(numbers.contrast_kept)[there], 1, atol=1e-5)
    assert not np.asarray(numbers.density_error_hu)[there].any()
    assert not np.asarray(numbers.diameter_error_mm)[there].any()
    for values in numbers[:3]:
        assert np.isnan(np.asarray(values)[~there]).all()


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_denoiser_that_lowers_contrast_is_seen(kept):
    background, truth, drawn = _scene()
    # A shift of all HU is no loss of contrast, but one of density.
    image = background + kept * (truth - background) + 12
    numbers = _numbers(image, truth, background, drawn)
    there = np.asarray(drawn.kind != EMPTY)
    np.testing.assert_allclose(
        np.asarray(numbers.contrast_kept)[there], kept, rtol=1e-4
    )
    # 750 HU of contrast.
    density = np.asarray(numbers.density_error_hu)[there]
    np.testing.assert_allclose(density, 12 - (1 - kept) * 750, atol=2)
    np.testing.assert_allclose(
        np.asarray(numbers.diameter_error_mm)[there], 0, atol=1e-3
    )


def test_a_nodule_that_grows_is_measured():
    background, truth, drawn = _scene()
    larger = drawn._replace(
        diameter_mm=jnp.where(drawn.kind == EMPTY, 0, drawn.diameter_mm + 1.0)
    )
    image = _insert(background, larger)
    numbers = _numbers(image, truth, background, drawn)
    there = np.asarray(drawn.kind != EMPTY)
    # Means over circles one pixel wide: a tenth of a pixel on each side.
    np.testing.assert_allclose(
        np.asarray(numbers.diameter_error_mm)[there], 1, atol=0.15
    )
    assert np.all(np.asarray(numbers.contrast_kept)[there] > 1)


@pytest.mark.slow
def test_blur_lowers_the_density_of_small_nodules_most():
    background, truth, drawn = _scene()
    numbers = _numbers(gaussian(truth, 2.0), truth, background, drawn)
    small, large = (
        np.asarray(numbers.density_error_hu)[np.asarray(drawn.kind == k)].mean()
        for k in (0, 1)
    )
    assert small < 2 * large < 0
    assert np.nanmax(np.asarray(numbers.contrast_kept)) < 0.95


@pytest.mark.slow
def test_noise_moves_no_mean():
    background, truth, drawn = _scene()
    noise = 60 * jax.random.normal(jax.random.key(1), truth.shape)
    numbers = _numbers(truth + noise, truth, background, drawn)
    there = np.asarray(drawn.kind != EMPTY)
    for values, expected in (
        (numbers.contrast_kept, 1),
        (numbers.density_error_hu, 0),
        (numbers.diameter_error_mm, 0),
    ):
        found = np.asarray(values)[there]
        assert abs(found.mean() - expected) < 3 * found.std() / np.sqrt(there.sum())


@pytest.mark.slow
def test_a_profiles_diameter():
    step = PROFILE_RADII[1]
    falling = np.clip((1 - PROFILE_RADII) / (4 * step) + 0.5, 0, 1)
    assert float(profile_diameter(jnp.asarray(falling))) == pytest.approx(2, abs=1e-3)
    assert float(profile_diameter(jnp.asarray(-20 * falling))) == pytest.approx(2)
    assert np.isnan(float(profile_diameter(jnp.ones(31))))
    assert np.isnan(float(profile_diameter(jnp.zeros(31))))


@pytest.mark.slow
def test_a_summary_has_means_and_intervals_of_each_kind():
    background, truth, drawn = _scene()
    noise = 40 * jax.random.normal(jax.random.key(4), truth.shape)
    image = background + 0.8 * (truth - background) + noise
    numbers = _numbers(image, truth, background, drawn)
    found = summarise_nodules(
        numbers,
        np.asarray(drawn.kind),
        np.asarray(drawn.found),
        KINDS,
        [f"p{i}" for i in range(12)],
    )
    assert set(found) == {"6 mm of -100 HU", "10 mm of -100 HU"}
    for one in found.values():
        assert one.count == 24
        for mean, expected in (
            (one.contrast_kept, 0.8),
            (one.density_error_hu, -0.2 * 750),
        ):
            assert mean.low < mean.mean < mean.high
            # 3 standard errors; and 1 HU, for pixels of the core that the edge reaches.
            reach = 3 * mean.sd / np.sqrt(24) + abs(expected) / 150
            assert abs(mean.mean - expected) < reach
        assert one.diameter_low_mm < one.diameter_error_mm < one.diameter_high_mm
        # A tenth of a millimetre: 40 HU of 600 on 24 nodules.
        assert abs(one.diameter_error_mm) < 0.2
    json.dumps(summary_to_json(found))


@pytest.mark.slow
def test_the_mean_profile_has_a_diameter_where_single_nodules_have_none():
    discs = tuple(n for n in NODULES["soft"] if n.hu == -20 and n.diameter_mm == 10)
    background, truth, drawn = _scene(discs, 50.0)
    noise = 30 * jax.random.normal(jax.random.key(3), truth.shape)
    numbers = _numbers(truth + noise, truth, background, drawn)
    single = np.asarray(numbers.diameter_error_mm)[np.asarray(drawn.kind == 0)]
    assert np.nanstd(single) > 1
    groups = [str(i) for i in range(12)]
    kinds = (np.asarray(drawn.kind), np.asarray(drawn.found))
    one = summarise_nodules(numbers, *kinds, discs, groups)["10 mm, -20 HU"]
    assert one.diameter_low_mm < 0 < one.diameter_high_mm
    assert abs(one.diameter_error_mm) < 0.5


def test_kinds_without_a_nodule_have_no_numbers():
    background, truth, drawn = _scene()
    numbers = _numbers(truth, truth, background, drawn)
    nowhere = np.zeros(drawn.found.shape, bool)
    found = summarise_nodules(
        numbers, np.asarray(drawn.kind), nowhere, KINDS, ["a", "b", "c"] * 4
    )
    one = found["6 mm of -100 HU"]
    assert (one.count, one.contrast_kept.mean, one.diameter_error_mm) == (0, None, None)


@pytest.mark.slow
def test_slices_alone_and_compiled_are_those_of_a_batch():
    background, truth, drawn = _scene()
    image = gaussian(truth, 1.0)
    together = _numbers(image, truth, background, drawn)
    one = jax.tree.map(lambda a: a[1], drawn)
    assert isinstance(one, DrawnNodules)
    alone = _numbers(image[1], truth[1], background[1], one)
    for a, b in zip(together, alone, strict=True):
        # float32 HU of 850; a diameter is a ratio of them.
        np.testing.assert_allclose(np.asarray(a)[1], np.asarray(b), atol=2e-3)
