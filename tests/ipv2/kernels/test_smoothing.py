import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage
from skimage.filters import gaussian as skimage_gaussian
from skimage.filters import median as skimage_median

from ipv2.kernels.smoothing import gaussian, median, wide_gaussian


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (31, 20)])
@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.3])
def test_gaussian_equals_scikit_image(shape, sigma):
    image = np.random.default_rng(1).normal(0, 100, (2, *shape)).astype(np.float32)
    ours = gaussian(jnp.asarray(image), sigma)
    for result, single in zip(ours, image, strict=True):
        # Wide enough that its radius, rounded to nearest, is ours, rounded up.
        truncate = np.ceil(4 * sigma) / sigma
        theirs = skimage_gaussian(
            single.astype(float), sigma, mode="nearest", truncate=truncate
        )
        # 1e-3 of 100: float32 sums against float64.
        np.testing.assert_allclose(result, theirs, atol=1e-3)


@pytest.mark.parametrize("shape", [(64, 48), (33, 65)])
def test_a_wide_gaussian_equals_scipy_with_repeated_images(shape):
    image = np.random.default_rng(4).normal(0, 100, (2, *shape)).astype(np.float32)
    ours = wide_gaussian(jnp.asarray(image), 4.0)
    theirs = ndimage.gaussian_filter(
        image.astype(float), (0, 4, 4), mode="wrap", truncate=8
    )
    # 1e-3 of 100: float32 transforms against float64 sums.
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_gaussian_without_a_width_is_refused():
    with pytest.raises(ValueError, match="sigma_px"):
        wide_gaussian(jnp.zeros((4, 4)), 0.0)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (31, 20)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_median_equals_scikit_image(shape, size):
    image = np.random.default_rng(2).normal(0, 100, (2, *shape)).astype(np.float32)
    ours = jax.jit(median, static_argnums=1)(jnp.asarray(image), size)
    for result, single in zip(ours, image, strict=True):
        theirs = skimage_median(single, np.ones((size, size)), mode="nearest")
        np.testing.assert_array_equal(result, theirs)


@pytest.mark.slow
def test_both_lower_noise_and_keep_the_edge_in_place():
    rng = np.random.default_rng(3)
    clean = np.where(np.arange(48) < 24, -860.0, 40.0) * np.ones((48, 1))
    noisy = jnp.asarray(clean + rng.normal(0, 60, clean.shape), jnp.float32)
    for quiet in (gaussian(noisy, 1.0), median(noisy, 3), median(noisy, 5)):
        flat = np.asarray(quiet)[4:-4, 6:18]
        assert flat.std() < 0.5 * 60
        crossing = np.argmax(np.asarray(quiet) > -410, axis=1)
        np.testing.assert_array_equal(crossing, np.full(48, 24))


@pytest.mark.slow
def test_gradients():
    image = jnp.asarray(np.random.default_rng(4).normal(0, 1, (5, 6)), jnp.float32)
    check_grads(
        lambda x: gaussian(jnp.asarray(x), 1.0),
        (image,),
        1,
        ["rev"],
        atol=1e-2,
        rtol=1e-2,
    )
    gradient = jax.grad(lambda x: median(x, 3)[2, 2])(image)
    chosen = np.asarray(gradient) != 0
    # One pixel is the median, and the whole gradient is its.
    assert chosen.sum() == 1
    assert image[chosen][0] == median(image, 3)[2, 2]
    assert gradient[chosen][0] == 1


def test_refuse_bad_values():
    with pytest.raises(ValueError, match="sigma_px must be above 0"):
        gaussian(jnp.zeros((4, 4)), 0.0)
    with pytest.raises(ValueError, match=r"size must be odd and at least 1 .* got 4"):
        median(jnp.zeros((4, 4)), 4)
