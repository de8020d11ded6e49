"""The rotating projector against scikit-image."""

import jax
import numpy as np
import pytest
from skimage.transform import iradon, radon

from ipv2.kernels.rotation_radon import (
    create_rotation_tables,
    rotate_and_sum,
    smear_back,
)

project = jax.jit(rotate_and_sum)
backproject = jax.jit(smear_back)


def random(shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


@pytest.mark.filterwarnings("ignore:Radon transform. image must be zero")
@pytest.mark.parametrize("size", [16, 17, 64, 65])
def test_sinogram_is_that_of_skimage_with_all_that_lies_outside_the_circle(size):
    image = random((size, size))
    degrees = np.arange(size) * (180 / size)
    expected = radon(image.astype(np.float64), degrees, circle=True).T
    found = project(create_rotation_tables(size), image)
    # float32: a sum of `size` products, each rounded to 1e-7.
    np.testing.assert_allclose(found, expected, atol=2e-7 * size)
    circle = np.hypot(*(np.mgrid[:size, :size] - size // 2)) <= size // 2
    inside = radon((image * circle).astype(np.float64), degrees, circle=True).T
    assert np.abs(expected - inside).max() > 1


@pytest.mark.parametrize("size", [16, 17, 64, 65])
def test_image_is_that_of_skimage(size):
    sinogram = size * random((size, size))
    degrees = np.arange(size) * (180 / size)
    expected = iradon(
        sinogram.T.astype(np.float64), degrees, filter_name="hann", circle=True
    )
    found = backproject(create_rotation_tables(size), sinogram)
    # float32: rounded to 1e-7 of the largest.
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
