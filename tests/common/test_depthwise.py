import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import depthwise
from common.depthwise import depthwise_convolve

# Sums of up to 200 float32 products of unit normals.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def test_every_channel_has_its_own_kernel():
    x = jnp.zeros((1, 4, 4, 2)).at[0, 1, 2].set(jnp.asarray([1.0, 10.0]))
    kernel = jnp.arange(18.0).reshape(3, 3, 2)
    y = depthwise_convolve(x, kernel)
    # A point turns the kernel round: y[1 + i, 2 + j] = kernel[1 - i, 1 - j].
    expected = [[0, 16, 14, 12], [0, 10, 8, 6], [0, 4, 2, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(y[0, ..., 0], expected)
    expected = [[0, 170, 150, 130], [0, 110, 90, 70], [0, 50, 30, 10], [0, 0, 0, 0]]
    np.testing.assert_array_equal(y[0, ..., 1], expected)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 1, 2, 3), 3),
        pytest.param((2, 7, 9, 5), 3, marks=pytest.mark.slow),
        pytest.param((2, 6, 5, 4), 5, marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients_are_those_of_lax(shape, size):
    x, kernel = random(*shape), random(size, size, shape[-1], seed=1)
    g = random(*shape, seed=2)

    def both(function):
        return jax.jit(lambda x, kernel, g: jax.vjp(function, x, kernel)[1](g))

    np.testing.assert_allclose(
        jax.jit(depthwise_convolve)(x, kernel),
        depthwise.plain_depthwise(x, kernel),
        **CLOSE,
    )
    ours = both(depthwise_convolve)(x, kernel, g)
    oracle = both(depthwise.plain_depthwise)(x, kernel, g)
    for value, expected in zip(ours, oracle, strict=True):
        np.testing.assert_allclose(value, expected, **CLOSE)


def test_bfloat16_gradient_is_accumulated_in_float32():
    # 64^2 ones: bfloat16 sums stop growing at 256, float32 ones do not.
    x = jnp.ones((1, 64, 64, 2), jnp.bfloat16)
    kernel = jnp.zeros((3, 3, 2), jnp.bfloat16)
    gradient = jax.jit(
        jax.grad(lambda k: jnp.sum(depthwise_convolve(x, k).astype(jnp.float32)))
    )(kernel)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient[1, 1], 64.0**2)


@pytest.mark.slow
def test_it_is_the_same_vmapped_and_pmapped():
    x, kernel = random(4, 2, 5, 6, 3), random(3, 3, 3, seed=1)

    def gradients(x):
        def loss(x, k):
            return jnp.sum(jnp.square(depthwise_convolve(x, k)))

        return jax.grad(loss, (0, 1))(x, kernel)

    expected = jax.lax.map(gradients, x)
    for other in (jax.jit(jax.vmap(gradients))(x), jax.pmap(gradients)(x)):
        # Sums of 60 squares reach 1e3: 1e-5 of that.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-2),
            other,
            expected,
        )


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ((3, 3, 4), "x has 2 channels but there are 4 kernels"),
        ((2, 2, 2), "square, of odd size, got 2x2"),
        ((3, 1, 2), "square, of odd size, got 3x1"),
    ],
)
def test_it_refuses_kernels_that_do_not_fit(kernel, message):
    # Past the annotations, which are only executed in tests.
    with pytest.raises(ValueError, match=message):
        depthwise_convolve.__wrapped__(jnp.zeros((1, 4, 4, 2)), jnp.zeros(kernel))


def test_it_refuses_mixed_dtypes():
    x, kernel = jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2), jnp.bfloat16)
    with pytest.raises(TypeError, match="got float32 and bfloat16"):
        depthwise_convolve(x, kernel)
