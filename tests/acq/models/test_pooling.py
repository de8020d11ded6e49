import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.models.pooling import adaptive_mean_pool, global_mean_pool, max_pool


def _random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "strides", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)]
)
def test_max_pool_never_takes_the_border(size, strides, padding):
    x = -1 - np.abs(_random(2, 7, 8, 3))
    y = np.asarray(max_pool(jnp.asarray(x), size, strides, padding))
    rows, columns = ((s + 2 * padding - size) // strides + 1 for s in x.shape[1:3])
    assert y.shape == (2, rows, columns, 3)
    for i in range(rows):
        for j in range(columns):
            top, left = i * strides - padding, j * strides - padding
            window = x[:, max(0, top) : top + size, max(0, left) : left + size]
            np.testing.assert_array_equal(y[:, i, j], window.max((1, 2)))


def test_max_pool_sends_the_gradient_to_the_first_of_equals():
    x = jnp.array([[1.0, 3], [3, 3]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool(x, 2, 2).sum())(x)
    np.testing.assert_array_equal(gradient[0, ..., 0], [[0, 1], [0, 0]])


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (14, 7), (10, 3)])
def test_adaptive_pool_has_pytorchs_windows(shape):
    x = _random(2, *shape, 3)
    y = np.asarray(adaptive_mean_pool(jnp.asarray(x), 7))
    assert y.shape == (2, 7, 7, 3)
    for i in range(7):
        for j in range(7):
            rows, columns = (
                slice(k * side // 7, int(np.ceil((k + 1) * side / 7)))
                for k, side in zip((i, j), shape, strict=True)
            )
            expected = x[:, rows, columns].mean((1, 2))
            np.testing.assert_allclose(y[:, i, j], expected, rtol=0, atol=1e-6)


def test_pools_that_change_nothing():
    x = jnp.asarray(_random(2, 7, 7, 3))
    np.testing.assert_array_equal(adaptive_mean_pool(x, 7), x)
    np.testing.assert_allclose(
        adaptive_mean_pool(x, 1)[:, 0, 0], global_mean_pool(x), rtol=0, atol=1e-6
    )
