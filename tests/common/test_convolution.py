import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import convolution
from common.convolution import convolve

# Sums of up to 5 * 5 * 16 float32 products of unit normals: rounding stays below 1e-4.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def slow_convolution(x, kernel, padding):
    """Written out from the equation, in float64."""
    x = np.pad(
        np.asarray(x, np.float64), ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0))
    )
    kernel = np.asarray(kernel, np.float64)
    size = kernel.shape[0]
    h, w = x.shape[1] - size + 1, x.shape[2] - size + 1
    return sum(
        np.einsum("nhwi,io->nhwo", x[:, i : i + h, j : j + w], kernel[i, j])
        for i in range(size)
        for j in range(size)
    )


def test_convolve_adds_the_products_of_a_table():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    kernel = jnp.asarray([[1.0, 0.0], [0.0, 10.0]]).reshape(2, 2, 1, 1)
    valid = convolve(x, kernel, 0)[0, ..., 0]
    np.testing.assert_array_equal(valid, [[40, 51], [73, 84]])
    full = convolve(x, kernel, 1)[0, ..., 0]
    expected = [[0, 10, 20, 0], [30, 40, 51, 2], [60, 73, 84, 5], [0, 6, 7, 8]]
    np.testing.assert_array_equal(full, expected)


SHAPES = [  # n, h, w, in, out, kernel, padding; below 8 lax's gradient
    (2, 9, 12, 16, 8, 5, 0),
    (2, 9, 12, 8, 16, 5, 4),
    (1, 7, 5, 9, 11, 3, 1),
    (3, 8, 8, 1, 16, 5, 0),
    (2, 6, 7, 16, 1, 5, 4),
    (1, 6, 6, 8, 8, 2, 1),
    (1, 5, 5, 8, 8, 5, 0),
    (2, 4, 4, 8, 8, 1, 0),
    (2, 4, 4, 3, 5, 1, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_convolve_and_gradients_match_the_equation(monkeypatch, shape):
    monkeypatch.setattr(convolution, "_MIN_CHANNELS", 8)  # both forms at small sizes
    n, h, w, i, o, size, padding = shape
    x, kernel = random(n, h, w, i), random(size, size, i, o, seed=1)
    y, transpose = jax.vjp(functools.partial(convolve, padding=padding), x, kernel)
    np.testing.assert_allclose(y, slow_convolution(x, kernel, padding), **CLOSE)
    # <g, conv(dx, k) + conv(x, dk)> = <vjp_x g, dx> + <vjp_k g, dk> for a basis would
    # be slow; lax's own gradients are the oracle.
    g = random(*y.shape, seed=2)
    _, oracle = jax.vjp(
        lambda x, k: convolution.plain_convolution(x, k, padding), x, kernel
    )
    for ours, expected in zip(transpose(g), oracle(g), strict=True):
        np.testing.assert_allclose(ours, expected, **CLOSE)


@pytest.mark.parametrize("block_floats", [1, 400, 1 << 19])
def test_kernel_gradient_does_not_depend_on_the_block(monkeypatch, block_floats):
    # 1: one row a block; 400: two rows, with spare ones; 1 << 19: the whole image.
    monkeypatch.setattr(convolution, "_BLOCK_FLOATS", block_floats)
    x, g = random(2, 11, 9, 8), random(2, 9, 7, 8, seed=1)
    np.testing.assert_allclose(
        convolution.blocked_kernel_gradient(x, g, 3, 0),
        convolution.plain_kernel_gradient(x, g, 3, 0),
        **CLOSE,
    )


def test_forms_for_other_platforms_agree_with_those_for_cpu():
    x, kernel = random(2, 9, 9, 8), random(5, 5, 8, 8, seed=1)
    for padding in (0, 2, 4):
        np.testing.assert_allclose(
            convolution.padded_convolution(x, kernel, padding),
            convolution.plain_convolution(x, kernel, padding),
            **CLOSE,
        )


@pytest.mark.slow
def test_convolve_is_the_same_jitted_vmapped_and_pmapped():
    x, kernel = random(4, 2, 9, 9, 8), random(3, 3, 8, 8, seed=1)

    def gradients(x):
        loss = lambda x, k: jnp.sum(jnp.square(convolve(x, k, 0)))  # noqa: E731
        return jax.grad(loss, (0, 1))(x, kernel)

    eager = [gradients(a) for a in x]
    eager = jax.tree.map(lambda *leaves: jnp.stack(leaves), *eager)
    jitted = jax.lax.map(jax.jit(gradients), x)
    for other in (jitted, jax.vmap(gradients)(x), jax.pmap(gradients)(x)):
        for ours, expected in zip(other, eager, strict=True):
            # Gradients of a sum of 98 * 8 squares reach 1e3: 1e-5 of that.
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-2)


def test_bfloat16_gradient_is_accumulated_in_float32():
    # 128^2 ones: bfloat16 sums stop growing at 256, float32 ones do not.
    x = jnp.ones((1, 128, 128, 8), jnp.bfloat16)
    kernel = jnp.zeros((1, 1, 8, 8), jnp.bfloat16)
    gradient = jax.grad(lambda k: jnp.sum(convolve(x, k, 0).astype(jnp.float32)))(
        kernel
    )
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient, 128.0**2)


@pytest.mark.parametrize(
    ("x", "kernel", "padding", "message"),
    [
        ((1, 8, 8, 2), (3, 3, 1, 4), 0, "x has 2 channels but the kernel takes 1"),
        ((1, 8, 8, 1), (3, 3, 1, 4), 3, r"padding must be in \[0, 3\), got 3"),
        ((1, 8, 8, 1), (3, 3, 1, 4), -1, r"padding must be in \[0, 3\), got -1"),
        ((1, 2, 8, 1), (5, 5, 1, 4), 1, "2x8 padded by 1 is smaller than the 5x5"),
    ],
)
def test_convolve_refuses_what_does_not_fit(x, kernel, padding, message):
    # Past the annotations, which are only executed in tests.
    with pytest.raises(ValueError, match=message):
        convolve.__wrapped__(jnp.zeros(x), jnp.zeros(kernel), padding)


def test_convolve_refuses_mixed_dtypes():
    x, kernel = jnp.zeros((1, 8, 8, 1)), jnp.zeros((3, 3, 1, 4), jnp.bfloat16)
    with pytest.raises(TypeError, match="got float32 and bfloat16"):
        convolve(x, kernel, 0)
