"""Bounds of the float network's features."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.denoisers.bounds import cut_off, growing_bound
from acq.denoisers.observation import observe
from acq.denoisers.ranges import ranges_of_images
from acq.denoisers.rounding import apply_rounded
from acq.training.losses import statistics_loss
from common.intercepted import intercepted
from tests.acq.denoisers.small_images import (
    bits_of,
    images,
    random_variables,
    small_network,
)


class Multiplying(nn.Module):
    """Blocks whose features are squared and added, as in NAFNet."""

    @nn.compact
    def __call__(self, x, *, train=False):
        y = nn.Conv(4, (3, 3), name="first")(x)
        for index in range(6):
            normal = nn.BatchNorm(not train, name=f"norm{index}")(y)
            gate, value = jnp.split(nn.Conv(8, (1, 1))(normal), 2, axis=-1)
            y = y + gate * value
        return x + nn.Conv(1, (1, 1), name="last")(y)


def test_a_bound_cuts_off_the_norm_s_input_and_leaves_what_is_inside():
    norm = nn.BatchNorm(use_running_average=True)
    mean, var = jnp.float32([1, -2]), jnp.float32([4, 0.25])
    variables = {
        "params": {"scale": jnp.float32([3, 1]), "bias": jnp.float32([0, 5])},
        "batch_stats": {"mean": mean, "var": var},
    }
    sd = np.sqrt(np.asarray(var) + norm.epsilon)
    inside, beyond, ends = (
        jnp.asarray(np.asarray(mean) + sd * np.float32(factors))
        for factors in (
            [[-2.9, 2.9], [0.5, -1]],
            [[-50, 3.1], [1e9, -1e9]],
            [[-3, 3], [3, -3]],
        )
    )
    free = [norm.apply(variables, values) for values in (inside, ends)]
    with intercepted(before_norm=cut_off(3.0)):
        np.testing.assert_array_equal(norm.apply(variables, inside), free[0])
        found = norm.apply(variables, beyond)
    np.testing.assert_allclose(found, free[1], rtol=1e-6)
    assert cut_off(None) is None


def test_the_generator_s_bound_grows_by_one_factor():
    bounds = np.array([growing_bound(jnp.int32(step), 6, 4.0) for step in range(7)])
    np.testing.assert_allclose(bounds[[0, 3, 6]], [4, np.sqrt(40), 10], rtol=1e-6)
    np.testing.assert_allclose(bounds[1:] / bounds[:-1], 2.5 ** (1 / 6), rtol=1e-6)


@pytest.mark.slow
def test_features_that_multiply_are_bounded_in_loss_and_gradient():
    module = Multiplying()
    variables = random_variables(module)

    @jax.jit
    def loss(x, bound):
        view = observe(module, variables, x, last="last", bound=bound)
        return statistics_loss(view.statistics, variables["batch_stats"], "relative")

    x = images(4)
    # The scale of first images; without a bound this network overflows.
    assert not np.isfinite(jax.jit(lambda x: loss(x, None))(100 * x))
    value, gradient = jax.value_and_grad(loss)(100 * x, jnp.float32(4))
    assert np.isfinite(value) and np.all(np.isfinite(gradient)) and np.any(gradient)
    # A bound that no feature reaches changes nothing.
    calm = 0.01 * x
    assert loss(calm, jnp.float32(1e6)) == jax.jit(lambda x: loss(x, None))(calm)


@pytest.mark.slow
def test_ranges_and_students_of_generated_images_see_bounded_features():
    network, bits = small_network(), bits_of(small_network())
    x = images(4).at[0].mul(300)
    free, bounded = (
        ranges_of_images(network, bits, [x], method="minmax", bound=bound)
        for bound in (None, 10.0)
    )
    norm = network.variables["params"]["norm"]
    highest = jnp.max(norm["bias"] + 10 * jnp.abs(norm["scale"]))
    assert free["last"]["high"] > 2 * highest
    np.testing.assert_allclose(bounded["last"]["high"], highest, rtol=1e-5)
    # Before the norm nothing is bounded.
    assert bounded["middle"]["high"] == free["middle"]["high"]
    variables = {**network.variables, "ranges": free}

    @jax.jit
    def inputs(variables):
        _, sown = apply_rounded(
            network.module, variables, x, bits, mutable=("inputs",), bound=10.0
        )
        return sown["inputs"]["last"]["x"]

    assert inputs(variables).max() <= highest * (1 + 1e-5)
