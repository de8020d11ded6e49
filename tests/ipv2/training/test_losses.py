import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.training.losses import create_loss, mean_absolute_error, mean_squared_error

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
    with pytest.raises(ValueError, match=r"'huber'; accepted: \['l1', 'mse'\]"):
        create_loss("huber")
