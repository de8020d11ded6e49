import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.attention import attention_center, attention_map


def textbook_map(features):
    energy = jnp.sum(features**2, axis=-1)
    return energy / jnp.sum(energy, axis=(1, 2), keepdims=True)


def textbook_center(attention, power):
    _, h, w = attention.shape
    weight = attention**power
    weight = weight / jnp.sum(weight, axis=(1, 2), keepdims=True)
    y, x = (np.linspace(1 / n - 1, 1 - 1 / n, n) for n in (h, w))
    at_x, at_y = np.meshgrid(x, y)
    return jnp.stack(
        [jnp.sum(weight * at[None], axis=(1, 2)) for at in (at_x, at_y)], axis=-1
    )


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.partial(jax.jit, static_argnums=(0,))
def gradients(function, x):
    y, transpose = jax.vjp(function, x)
    return y, transpose(jnp.sin(1 + jnp.arange(y.size)).reshape(y.shape))[0]


def center_of(features):
    return attention_center(attention_map(features), 2.0)


def test_map_is_each_positions_share():
    features = jnp.asarray([[1.0, -1], [0, 0], [2, 1], [1, 0]]).reshape(1, 2, 2, 2)
    expected = np.asarray([[[2, 0], [5, 1]]]) / 8
    np.testing.assert_allclose(attention_map(features), expected, rtol=1e-6)


def test_center_of_a_single_position_is_that_pixels_middle():
    one = jnp.zeros((2, 2, 4)).at[0, 0, 0].set(3).at[1, 1, 2].set(0.1)
    expected = [[-0.75, -0.5], [0.25, 0.5]]
    center, _ = gradients(lambda a: attention_center(a, 2.0), one)
    np.testing.assert_allclose(center, expected, atol=1e-7)


def test_power_pulls_the_center_to_the_peak():
    attention = jnp.asarray([[[1.0, 1, 1, 2]]])
    centers = jax.jit(lambda a: [attention_center(a, p)[0, 0] for p in (1, 2, 50)])
    expected = [0.15, (-0.75 + 3) / 7, 0.75]
    np.testing.assert_allclose(centers(attention), expected, rtol=1e-6)


def test_map_and_its_gradient_match_autodiff_of_the_textbook():
    features = random(2, 3, 5, 4)
    for ours, theirs in zip(
        gradients(attention_map, features),
        gradients(textbook_map, features),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("power", [1, 2.0, 3.5])
def test_center_and_its_gradient_match_autodiff_of_the_textbook(power):
    attention = jnp.abs(random(3, 4, 3, seed=1))
    for ours, theirs in zip(
        gradients(lambda a: attention_center(a, power), attention),
        gradients(lambda a: textbook_center(a, power), attention),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_zero_features_are_uniform_with_gradient_zero():
    features = random(2, 3, 5, 4).at[1].set(0)
    y, dx = gradients(attention_map, features)
    np.testing.assert_allclose(y[1], np.full((3, 5), 1 / 15), rtol=1e-6)
    np.testing.assert_array_equal(dx[1], np.zeros((3, 5, 4)))
    assert np.all(np.isfinite(dx)) and np.any(dx[0] != 0)
    center, dx = gradients(center_of, features)
    np.testing.assert_allclose(center[1], [0, 0], atol=1e-7)
    np.testing.assert_array_equal(dx[1], np.zeros((3, 5, 4)))
    assert np.all(np.isfinite(dx)) and np.any(dx[0] != 0)


@pytest.mark.parametrize("power", [1, 20.0])
def test_maps_that_are_0_or_nearly_so_stay_finite(power):
    attention = jnp.asarray([[[0.0, 1e-7, 1e-5, 0]], [[0.0, 0, 0, 0]]])
    center, da = gradients(lambda a: attention_center(a, power), attention)
    assert np.all(np.isfinite(center)) and np.all(np.isfinite(da))
    np.testing.assert_array_equal(da[1], np.zeros((1, 4)))


@pytest.mark.slow
def test_eager_jit_and_vmap_agree():
    features = random(2, 3, 5, 4)
    expected = gradients(center_of, features)
    np.testing.assert_allclose(center_of(features), expected[0], atol=1e-6)
    one_by_one = jax.vmap(lambda x: center_of(x[None])[0])
    for ours, theirs in zip(gradients(one_by_one, features), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bfloat16_features_are_summed_in_float32():
    features = random(2, 16, 16, 8).astype(jnp.bfloat16)
    y, dx = gradients(attention_map, features)
    assert y.dtype == jnp.float32 and dx.dtype == jnp.bfloat16
    expected = textbook_map(np.asarray(features, np.float32))
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"got features of \(1, 0, 2, 3\)"):
        attention_map(jnp.zeros((1, 0, 2, 3)))
    with pytest.raises(ValueError, match=r"got maps of \(1, 2, 0\)"):
        attention_center(jnp.zeros((1, 2, 0)), 2.0)
    for power in (0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"at least 1, got {power}"):
            attention_center(jnp.ones((1, 2, 2)), power)
