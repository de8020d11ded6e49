import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.training.losses import (
    LOSSES,
    create_loss,
    mean_absolute_error,
    mean_squared_error,
)

PREDICTION = jnp.asarray([[0.0, 1.0], [2.0, -3.0]])
TARGET = jnp.asarray([[0.0, 3.0], [1.0, -3.0]])


@pytest.mark.parametrize(
    ("name", "value", "gradient"),
    [
        ("mse", 1.25, [[0.0, -1.0], [0.5, 0.0]]),
        ("l1", 0.75, [[0.0, -0.25], [0.25, 0.0]]),
    ],
)
def test_loss_and_gradient_match_a_table(name, value, gradient):
    loss = create_loss(name)
    assert float(loss(PREDICTION, TARGET)) == value
    assert float(jax.jit(loss)(PREDICTION, TARGET)) == value
    np.testing.assert_array_equal(jax.grad(loss)(PREDICTION, TARGET), gradient)


def test_the_logarithm_is_that_of_each_image():
    loss = create_loss("log_mse")
    expected = np.mean(np.log(np.array([4.0, 1.0]) / 2 + 1e-6))
    assert float(loss(PREDICTION, TARGET)) == pytest.approx(expected, abs=1e-6)
    # An error ten times as large costs as much more wherever it is.
    more = loss(TARGET + 10 * (PREDICTION - TARGET), TARGET)
    assert float(more) == pytest.approx(expected + np.log(100), rel=1e-5)
    gradient = jax.grad(loss)(PREDICTION, TARGET)
    # d/dp of ln(mean d^2) / 2 images = d / sum(d^2).
    np.testing.assert_allclose(gradient, [[0, -0.5], [1, 0]], rtol=1e-5)


def test_the_relative_error_is_that_of_each_image_over_its_noise():
    loss = create_loss("relative_mse")
    noisy = TARGET + jnp.asarray([[2.0, 2.0], [10.0, 0.0]])
    one = 1e-6
    expected = np.mean([(4 / 2) / (4 + one), (1 / 2) / (50 + one)])
    assert float(loss(PREDICTION, TARGET, None, noisy)) == pytest.approx(expected)
    # All input is as good as nothing, and the scale is no function of the prediction.
    assert float(loss(noisy, TARGET, None, noisy)) == pytest.approx(1, abs=1e-6)
    gradient = jax.grad(loss)(PREDICTION, TARGET, None, noisy)
    np.testing.assert_allclose(gradient, [[0, -0.25], [0.01, 0]], rtol=1e-5)
    with pytest.raises(ValueError, match="noisy is missing"):
        loss(PREDICTION, TARGET)


def test_means_of_regions_count_beside_the_pixels():
    loss = create_loss("relative_mse_means")
    rng = np.random.default_rng(0)
    # One row and two columns more than whole regions: they count as pixels alone.
    prediction, target, noisy = rng.normal(size=(3, 2, 17, 26, 1))

    def relative(error, before):
        squares = (np.mean(x.reshape(2, -1) ** 2, axis=1) for x in (error, before))
        return np.mean(next(squares) / (next(squares) + 1e-6))

    def means(images):
        blocks = [
            images[:, i : i + 8, j : j + 8].mean(axis=(1, 2))
            for i in (0, 8)
            for j in (0, 8, 16)
        ]
        return np.stack(blocks, axis=1)

    error, before = prediction - target, noisy - target
    expected = relative(error, before) + relative(means(error), means(before)) / 4
    arrays = (jnp.asarray(a, jnp.float32) for a in (prediction, target, noisy))
    prediction, target, noisy = arrays
    found = loss(prediction, target, None, noisy)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="8 x 8 pixels, got images of 7 x 26"):
        loss(prediction[:, :7], target[:, :7], None, noisy[:, :7])


@pytest.mark.parametrize("name", LOSSES)
def test_a_pixel_of_weight_zero_does_not_count(name):
    prediction, target = (
        x.repeat(32).reshape(2, 8, 8, 1) for x in (PREDICTION, TARGET)
    )
    noisy = jnp.full(target.shape, 5.0)

    def loss(prediction, target, weight):
        return create_loss(name)(prediction, target, weight, noisy)

    weight = jnp.ones(target.shape).at[0, 1].set(0)
    changed = target.at[0, 1].set(99.0)
    assert float(loss(prediction, changed, weight)) == float(
        loss(prediction, target, weight)
    )
    assert not jax.grad(loss)(prediction, changed, weight)[0, 1].any()
    with pytest.raises(ValueError, match="weight must have one shape"):
        loss(prediction, target, weight[..., None])


@pytest.mark.parametrize("loss", [mean_squared_error, mean_absolute_error])
@pytest.mark.parametrize("shape", [(2, 1), (1, 2, 2), (2, 2, 1), ()])
def test_loss_refuses_to_broadcast(loss, shape):
    with pytest.raises(ValueError, match="one shape, got"):
        loss(PREDICTION, jnp.zeros(shape))


@pytest.mark.parametrize("loss", [mean_squared_error, mean_absolute_error])
def test_loss_of_bfloat16_is_averaged_in_float32(loss):
    # In bfloat16 a sum of ones stops growing at 256.
    value = loss(jnp.ones((64, 64), jnp.bfloat16), jnp.zeros((64, 64), jnp.bfloat16))
    assert value.dtype == jnp.float32
    assert float(value) == 1.0


def test_create_loss_names_what_is_accepted():
    with pytest.raises(ValueError, match=re.escape(f"accepted: {sorted(LOSSES)}")):
        create_loss("huber")
