import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from skimage.restoration import denoise_tv_chambolle

from ipv2.kernels.total_variation import total_variation


def _noisy_step(size=48, sd=60.0):
    rng = np.random.default_rng(7)
    clean = np.where(np.arange(size) < size // 2, -860.0, 40.0) * np.ones((size, 1))
    return clean.astype(np.float32), (clean + rng.normal(0, sd, clean.shape)).astype(
        np.float32
    )


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (31, 20)])
def test_equals_scikit_image_after_the_same_iterations(shape):
    image = np.random.default_rng(8).normal(0, 100, shape).astype(np.float64)
    ours = total_variation(jnp.asarray(image, jnp.float32)[None], 50.0, 12)[0]
    # eps = 0 keeps scikit-image from stopping early. It forms its output before it
    # updates the dual: its 13th image holds the dual of 12 updates.
    theirs = denoise_tv_chambolle(image, weight=50.0, eps=0, max_num_iter=13)
    # 1e-2 of 100: twelve float32 updates against float64.
    np.testing.assert_allclose(ours, theirs, atol=1e-2)


def test_lowers_noise_and_keeps_the_edge_in_place():
    clean, noisy = _noisy_step()
    quiet = np.asarray(total_variation(jnp.asarray(noisy), 60.0, 50))
    flat = np.s_[4:-4, 4:20]
    assert (quiet - clean)[flat].std() < 0.5 * (noisy - clean)[flat].std()
    # The step crosses half-way between the same two columns in every row.
    crossing = np.argmax(quiet > -410, axis=1)
    np.testing.assert_array_equal(crossing, np.full(48, 24))


@pytest.mark.slow
def test_keeps_the_mean_and_flat_images():
    _, noisy = _noisy_step()
    quiet = total_variation(jnp.asarray(noisy), 80.0, 30)
    # The divergence sums to zero; 0.05 HU is float32 rounding at 1000 HU.
    assert abs(float(quiet.mean()) - noisy.mean()) < 0.05
    flat = jnp.full((2, 9, 7), 33.0)
    np.testing.assert_array_equal(total_variation(flat, 10.0, 5), flat)


@pytest.mark.slow
def test_gradient_is_that_of_finite_differences_and_finite_when_flat():
    image = jnp.asarray(np.random.default_rng(9).normal(0, 1, (6, 5)), jnp.float32)
    check_grads(
        lambda x: total_variation(jnp.asarray(x), 0.7, 4),
        (image,),
        1,
        ["rev"],
        atol=2e-2,
        rtol=2e-2,
    )
    flat = jax.grad(lambda x: total_variation(x, 1.0, 4).sum())(jnp.ones((4, 4)))
    assert np.isfinite(flat).all()


@pytest.mark.parametrize(
    ("weight", "iterations", "message"),
    [(0.0, 5, "weight must be above 0"), (1.0, 0, "iterations must be at least 1")],
)
def test_refuses_bad_values(weight, iterations, message):
    with pytest.raises(ValueError, match=message):
        total_variation(jnp.zeros((4, 4)), weight, iterations)
