"""The loop over slices: its results do not depend on the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels.slice_loop import slice_by_slice


def body(constants, image, factor):
    # A sum in float32, whose rounding depends on how it is compiled.
    return jnp.tanh(constants["matrix"] @ image) * factor + jnp.sum(image)


@jax.jit
def run(images, factors, matrix):
    return slice_by_slice(body, (images, factors), {"matrix": matrix})


RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 37, 41)).astype(np.float32)
FACTORS = RNG.normal(size=5).astype(np.float32)
MATRIX = RNG.normal(size=(37, 37)).astype(np.float32)


def test_slices_are_stacked_in_order():
    result = run(IMAGES, FACTORS, MATRIX)
    for one, image, factor in zip(result, IMAGES, FACTORS, strict=True):
        expected = np.tanh(MATRIX @ image) * factor + image.sum()
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", [[0], [3], [4, 2], [1, 0, 2]])
def test_the_batch_does_not_matter_to_the_bit(index):
    result = np.asarray(run(IMAGES, FACTORS, MATRIX))
    few = run(IMAGES[index], FACTORS[index], MATRIX)
    np.testing.assert_array_equal(few, result[index])


def test_vmap_agrees():
    stacked = np.stack([IMAGES, 2 * IMAGES])
    both = jax.vmap(lambda images: run(images, FACTORS, MATRIX))(stacked)
    for one, images in zip(both, stacked, strict=True):
        np.testing.assert_allclose(
            one, run(images, FACTORS, MATRIX), rtol=1e-4, atol=1e-4
        )
