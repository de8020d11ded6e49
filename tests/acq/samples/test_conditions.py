import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.attention import attention_center
from acq.samples.conditions import draw_conditions, heat_map

CLASSES, MANY, SHIFT = 5, 4000, 2


def conditions(numbers, seed, paired):
    return draw_conditions(
        jax.random.key(seed),
        numbers,
        latent=3,
        classes=CLASSES,
        reach=0.6,
        paired=paired,
        shift=SHIFT,
    )


compiled = jax.jit(conditions, static_argnames="paired")


def draw(numbers=None, *, paired, seed=0):
    """Of one size, which is compiled once."""
    given = np.arange(MANY) if numbers is None else numbers
    found = compiled(given.astype(np.uint32), seed, paired)
    return jax.tree.map(np.asarray, found)


@functools.cache
def many():
    return draw(paired=False)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_a_sample_depends_on_its_number_and_not_on_its_batch(paired):
    whole = draw(paired=paired)
    order = np.random.default_rng(0).permutation(MANY)
    shuffled = draw(order, paired=paired)
    assert_equal(jax.tree.map(lambda x: x[order], whole), shuffled)
    # Up to the last number there is.
    last = draw(2**32 - 1 - order, paired=paired)
    assert all(np.isfinite(leaf).all() for leaf in last)


@pytest.mark.slow
def test_devices_draw_what_one_device_draws():
    own = jax.pmap(lambda numbers: conditions(numbers, 0, paired=True))(
        np.arange(8, dtype=np.uint32).reshape(4, 2)
    )
    joined = jax.tree.map(lambda x: np.reshape(x, (8, *x.shape[2:])), own)
    assert_equal(joined, jax.tree.map(lambda x: x[:8], draw(paired=True)))


def test_pairs_share_class_and_centre_and_not_the_latent():
    latent, label, center, shift = draw(paired=True)
    np.testing.assert_array_equal(label[0::2], label[1::2])
    np.testing.assert_array_equal(center[0::2], center[1::2])
    assert (latent[0::2] != latent[1::2]).any(axis=1).all()
    # Of float32's 2^24 places some are drawn twice.
    assert len(np.unique(center[:, 0])) > 0.99 * MANY / 2
    assert len(np.unique(many().center[:, 0])) > 0.99 * MANY
    # Latents and shifts have nothing to do with pairs.
    np.testing.assert_array_equal(many().latent, latent)
    np.testing.assert_array_equal(many().shift, shift)


def test_another_seed_draws_everything_anew():
    for one, other in zip(many(), draw(paired=False, seed=1), strict=True):
        assert np.mean(one == other) < 2 / CLASSES


def test_latents_are_standard_normal():
    latent = many().latent
    assert latent.dtype == np.float32
    # Five standard errors of so many draws.
    np.testing.assert_allclose(latent.mean(0), 0, atol=5 / MANY**0.5)
    np.testing.assert_allclose(np.cov(latent.T), np.eye(3), atol=5 * (2 / MANY) ** 0.5)


def test_labels_are_uniform():
    label = many().label
    assert label.dtype == np.int32
    expected = MANY / CLASSES
    counts = np.bincount(label, minlength=CLASSES)
    assert len(counts) == CLASSES
    np.testing.assert_allclose(counts, expected, atol=5 * expected**0.5)


def test_centres_are_uniform_over_their_square():
    center = many().center
    assert np.abs(center).max() <= 0.6
    for place in center.T:
        # Kolmogorov-Smirnov: a distance of 1.95 / sqrt(n) has a chance of 0.1 %.
        share = (np.sort(place) + 0.6) / 1.2
        assert np.abs(share - np.linspace(0, 1, MANY)).max() < 1.95 / MANY**0.5
    assert abs(np.corrcoef(center.T)[0, 1]) < 5 / MANY**0.5


def test_shifts_are_uniform_over_whole_pixels():
    shift = many().shift
    assert shift.dtype == np.int32
    expected = MANY / (2 * SHIFT + 1)
    for along in shift.T:
        counts = np.bincount(along + SHIFT)
        assert len(counts) == 2 * SHIFT + 1
        np.testing.assert_allclose(counts, expected, atol=5 * expected**0.5)


@pytest.mark.slow
def test_without_shifts_none_is_drawn_and_the_rest_is_the_same():
    found = draw_conditions(
        jax.random.key(0),
        jnp.arange(4, dtype=jnp.uint32),
        latent=3,
        classes=CLASSES,
        reach=0.6,
        paired=False,
    )
    np.testing.assert_array_equal(found.shift, np.zeros((4, 2)))
    for one, other in zip(found[:3], many()[:3], strict=True):
        np.testing.assert_array_equal(one, other[:4])


def test_class_centre_latent_and_shift_are_independent():
    columns = np.column_stack(many())
    between = np.corrcoef(columns.T)[np.triu_indices(8, 1)]
    assert np.abs(between).max() < 5 / MANY**0.5


@pytest.mark.slow
def test_heat_map_is_the_gaussian_it_says():
    center = np.float32([[0.3, -0.5], [-0.9, 0.1]])
    place = [-0.75, -0.25, 0.25, 0.75]
    found = heat_map(jnp.asarray(center), 4, sigma=0.4, height=3)
    assert found.shape == (2, 4, 4, 1)
    for n, (cx, cy) in enumerate(center):
        for row, y in enumerate(place):
            for column, x in enumerate(place):
                squared = (x - cx) ** 2 + (y - cy) ** 2
                np.testing.assert_allclose(
                    found[n, row, column, 0],
                    3 * np.exp(-squared / (2 * 0.4**2)),
                    rtol=1e-5,
                )


@pytest.mark.slow
def test_heat_map_peaks_where_attention_would_have_its_centre():
    """The first number points right, the second down, in both modules."""
    right = jnp.asarray([[0.625, -0.125]])  # column 6 and row 3 of 8
    found = heat_map(right, 8, sigma=0.1, height=2)[..., 0]
    row, column = np.unravel_index(np.argmax(found), (8, 8))
    assert (row, column) == (3, 6)
    center = jnp.asarray([[0.4, -0.3], [-0.1, 0.55]])
    maps = heat_map(center, 32, sigma=0.12, height=1)[..., 0]
    # Inside the image by three sigma: the centroid is the centre.
    np.testing.assert_allclose(attention_center(maps, 1), center, atol=2e-3)
