"""Networks of any code, rounded by interception."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from acq.denoisers.bits import convolutions_of
from acq.denoisers.ranges import noise_images, ranges_of_images, weight_ends
from acq.denoisers.rounding import (
    apply_rounded,
    rounded_kernels,
    roundings_of,
    settled,
)
from acq.kernels.grid import Grid
from common.errors import UserError
from tests.acq.denoisers.small_images import (
    Residual,
    bits_of,
    images,
    random_variables,
    small_network,
)


def test_convolutions_are_found_in_their_order_with_their_norms():
    found = convolutions_of(small_network(), 8)
    assert [tuple(one)[:2] for one in found] == [
        ("first", ""),
        ("middle", "norm"),
        ("last", ""),
    ]
    assert [one.norm for one in convolutions_of(small_network(norm=False), 8)] == [
        *("", "", "")
    ]


def test_a_network_without_convolutions_is_refused():
    network = small_network()
    dense = nn.Dense(1)
    other = dataclasses.replace(
        network, module=dense, variables=dense.init(jax.random.key(0), images(1))
    )
    with pytest.raises(UserError, match="no convolution to quantize"):
        convolutions_of(other, 8)


def test_first_and_last_have_bits_of_their_own():
    bits = bits_of(small_network(), 4, 3)
    assert [bits.of_weights(name).bits for name in bits.names] == [8, 4, 8]
    assert [bits.of_input(name).bits for name in bits.names] == [8, 3, 8]
    same = bits_of(small_network(), 4, 3, 0)
    assert [same.of_input(name).bits for name in same.names] == [3, 3, 3]


def test_ranges_are_those_of_the_inputs():
    network, x = small_network(), images(2)
    bits = bits_of(network)
    ranges = ranges_of_images(network, bits, [x, x], method="minmax")
    # What files hold, whatever the images are.
    assert (float(ranges["first"]["low"]), float(ranges["first"]["high"])) == (-2, 2)
    assert float(ranges["middle"]["low"]) == 0  # a rectifier's output
    kernel = network.variables["params"]["middle"]["kernel"]
    np.testing.assert_array_equal(
        ranges["middle"]["end"], np.abs(kernel).max(axis=(0, 1, 2))
    )
    few = ranges_of_images(network, bits_of(network, 8, 8, 7), [x, x], method="minmax")
    np.testing.assert_allclose(few["first"]["low"], x.min(), rtol=1e-6)
    np.testing.assert_allclose(few["first"]["high"], x.max(), rtol=1e-6)
    with pytest.raises(ValueError, match="at least one batch"):
        ranges_of_images(network, bits, [])


class _Standardised(Residual):
    @nn.compact
    def __call__(self, x, *, train=False):
        y = nn.relu(nn.Conv(4, (3, 3), name="first")((x + 2) / 4))
        return nn.Conv(1, (1, 1), name="last")(y)


def test_the_range_of_the_input_is_that_after_what_comes_before_the_convolution():
    module = _Standardised()
    network = dataclasses.replace(
        small_network(), module=module, variables=random_variables(module)
    )
    ranges = ranges_of_images(network, bits_of(network), [images(2)])
    assert (float(ranges["first"]["low"]), float(ranges["first"]["high"])) == (0, 1)


@pytest.mark.slow
def test_ranges_of_statistics_do_not_see_images_after_a_norm():
    network = small_network()
    bits = bits_of(network)
    few, many = (
        ranges_of_images(network, bits, [scale * images(2)], gaussian_seed=3)
        for scale in (0.1, 10)
    )
    assert float(many["middle"]["high"]) > 3 * float(few["middle"]["high"])
    assert float(many["last"]["high"]) == float(few["last"]["high"])


def test_noise_fills_the_range_of_the_unit():
    x = noise_images(small_network(), 4, 16, 0)
    assert x.shape == (4, 16, 16, 1)
    assert -1 <= float(x.min()) < -0.95 and 1.95 < float(x.max()) <= 2


def test_kernels_take_as_many_values_as_their_bits_in_each_channel():
    network = small_network()
    bits = bits_of(network, 3)
    ranges = ranges_of_images(network, bits, [images(2)], method="minmax")
    params = rounded_kernels(network.variables["params"], ranges, bits)
    scale = roundings_of(ranges, bits)["middle"].weight_scale
    codes = np.asarray(params["middle"]["kernel"]) / scale
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-5)
    assert set(np.rint(codes).ravel()) <= {-3, -2, -1, 0, 1, 2, 3}
    np.testing.assert_array_equal(np.abs(np.rint(codes)).max(axis=(0, 1, 2)), 3)


def test_mean_squared_error_chooses_no_worse_weights():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 4)).astype(np.float32)
    grid = Grid(4, symmetric=True)
    errors = []
    for method in ("minmax", "mse"):
        step = np.asarray(weight_ends(jnp.asarray(kernel), grid, method)) / grid.qmax
        rounded = np.clip(np.round(kernel / step), -grid.qmax, grid.qmax) * step
        errors.append(np.sum(np.square(rounded - kernel), (0, 1, 2)))
    assert np.all(errors[1] < errors[0])


@pytest.mark.slow
def test_fewer_bits_are_farther_from_the_float_network():
    network, x = small_network(), images(4)
    want = network.module.apply(network.variables, x)
    errors = []
    for count in (8, 6, 4):
        bits = bits_of(network, count, count, 0)
        ranges = ranges_of_images(network, bits, [x])
        found, _ = apply_rounded(
            network.module, {**network.variables, "ranges": ranges}, x, bits
        )
        errors.append(float(jnp.sqrt(jnp.mean(jnp.square(found - want)))))
    assert 0 < errors[0] < errors[1] / 2 < errors[2] / 4
    assert errors[0] < 0.02


@pytest.mark.slow
def test_weights_and_ends_of_inputs_are_learned_and_ends_of_weights_are_not():
    network, x = small_network(), images(2)
    bits = bits_of(network, 4, 4)
    ranges = ranges_of_images(network, bits, [x])
    trained = {"params": network.variables["params"], "ranges": ranges}

    def loss(trained):
        outputs, _ = apply_rounded(
            network.module, {**network.variables, **trained}, x, bits
        )
        return jnp.sum(jnp.square(outputs))

    gradient = flatten_dict(jax.grad(loss)(trained), sep="/")
    for name, leaf in gradient.items():
        assert np.all(np.isfinite(leaf)), name
        # After a rectifier the lower end stays at 0.
        still = name.endswith("/end") or name in (
            *("ranges/middle/low", "ranges/last/low"),
        )
        assert np.any(leaf != 0) != still, name


@pytest.mark.slow
def test_settled_biases_are_multiples_and_stay_within_half_a_step():
    network, x = small_network(), images(2)
    bits = bits_of(network, 4, 4)
    ranges = ranges_of_images(network, bits, [x])
    variables = {**network.variables, "ranges": ranges}
    found = settled(variables, bits, convolutions_of(network, 8))
    again = settled(found, bits, convolutions_of(network, 8))
    rounding = roundings_of(ranges, bits)["first"]
    step = rounding.scale * rounding.weight_scale
    before = network.variables["params"]["first"]["bias"]
    after = found["params"]["first"]["bias"]
    codes = after / step
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
    assert np.all(np.abs(after - before) <= 0.5001 * step)
    norm = network.variables["params"]["norm"], found["params"]["norm"]
    assert np.any(norm[0]["bias"] != norm[1]["bias"])
    np.testing.assert_array_equal(norm[0]["scale"], norm[1]["scale"])
    # Rounding what is rounded changes nothing but float32's last digits.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found["params"],
        again["params"],
    )
