"""Pixel shuffle, convolutions over blocks and maxima over blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ipv2.kernels.block_maximum import block_maximum
from ipv2.kernels.patch_convolution import convolve_patches, transpose_patches
from ipv2.kernels.pixel_shuffle import pixel_shuffle, pixel_unshuffle

# Sums of up to 200 float32 products of unit normals.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
NHWC = ("NHWC", "HWIO", "NHWC")


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_shuffle_takes_pixels_from_neighbouring_channels():
    # Two channels out of eight: 0-3 are the first's block, 4-7 the second's.
    x = jnp.arange(8.0).reshape(1, 1, 1, 8)
    y = pixel_shuffle(x, 2)
    np.testing.assert_array_equal(y[0, ..., 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(y[0, ..., 1], [[4, 5], [6, 7]])


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_unshuffle_is_the_inverse_and_the_gradient(factor):
    x = random(2, 3, 4, 2 * factor**2)
    y, transpose = jax.vjp(lambda x: pixel_shuffle(x, factor), x)
    assert y.shape == (2, 3 * factor, 4 * factor, 2)
    np.testing.assert_array_equal(pixel_unshuffle(y, factor), x)
    np.testing.assert_array_equal(transpose(y)[0], x)


def plain_patches(x, kernel):
    size = kernel.shape[0]
    return lax.conv_general_dilated(
        x, kernel, (size, size), "VALID", dimension_numbers=NHWC
    )


def plain_transpose(x, kernel):
    # PyTorch's transposed convolution is the gradient of the strided one.
    n, h, w, _ = x.shape
    size, _, _, out = kernel.shape
    shape = jax.ShapeDtypeStruct((n, h * size, w * size, out), x.dtype)
    strided = lambda y: plain_patches(y, kernel.swapaxes(2, 3))  # noqa: E731
    return jax.linear_transpose(strided, shape)(x)[0]


@pytest.mark.parametrize(
    ("ours", "oracle"),
    [(convolve_patches, plain_patches), (transpose_patches, plain_transpose)],
)
@pytest.mark.parametrize("size", [2, 3])
def test_patch_convolutions_and_gradients_are_those_of_lax(ours, oracle, size):
    x, kernel = random(2, 3 * size, 2 * size, 9), random(size, size, 9, 8, seed=1)
    g = random(*jax.eval_shape(oracle, x, kernel).shape, seed=2)

    def both(function):
        y, transpose = jax.vjp(function, x, kernel)
        return y, *transpose(g)

    for value, other in zip(
        jax.jit(lambda: both(ours))(), jax.jit(lambda: both(oracle))(), strict=True
    ):
        np.testing.assert_allclose(value, other, **CLOSE)


@pytest.mark.parametrize("size", [2, 3])
def test_a_bias_is_added_to_each_channel(size):
    x, kernel = random(2, 3, 5, 4), random(size, size, 4, 3, seed=1)
    bias = random(3, seed=2)
    found = jax.jit(transpose_patches)(x, kernel, bias)
    want = transpose_patches(x, kernel) + bias.reshape(1, 1, 1, 3)
    np.testing.assert_allclose(found, want, **CLOSE)


def test_maximum_of_blocks_and_its_gradient():
    x = jnp.asarray([[0.0, 3, 1, 1], [2, 1, 1, 1], [9, 8, -1, -2], [7, 6, -3, -4]])
    x = x.reshape(1, 4, 4, 1)
    y, transpose = jax.vjp(lambda x: block_maximum(x, 2), x)
    np.testing.assert_array_equal(y[0, ..., 0], [[3, 1], [9, -1]])
    gradient = transpose(jnp.asarray([[1.0, 4], [2, 3]]).reshape(1, 2, 2, 1))[0]
    expected = np.asarray([[0, 1, 0, 0], [0, 0, 0, 0], [2, 0, 3, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(gradient[0, :, :2, 0], expected[:, :2])
    np.testing.assert_array_equal(gradient[0, 2:, 2:, 0], expected[2:, 2:])
    # Equal pixels share theirs.
    assert gradient[0, :2, 2:, 0].sum() == 4
    assert np.all(gradient[0, :2, 2:, 0] >= 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pixel_shuffle(x, 2), "6 channels do not divide into 2x2 pixels"),
        (lambda x: pixel_shuffle(x, 0), "6 channels do not divide into 0x0 pixels"),
        (lambda x: pixel_unshuffle(x, 2), "image of 4x5 does not divide into 2x2"),
        (lambda x: block_maximum(x, 2), "image of 4x5 does not divide into 2x2"),
        (
            lambda x: convolve_patches(x, jnp.zeros((2, 2, 6, 1))),
            "image of 4x5 does not divide into blocks of 2x2",
        ),
    ],
)
def test_sizes_that_do_not_divide_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((1, 4, 5, 6)))


@pytest.mark.parametrize("function", [convolve_patches, transpose_patches])
def test_patch_convolutions_refuse_a_kernel_that_is_not_square(function):
    with pytest.raises(ValueError, match=r"must be square, got \(2, 1\)"):
        function.__wrapped__(jnp.zeros((1, 4, 4, 2)), jnp.zeros((2, 1, 2, 2)))
