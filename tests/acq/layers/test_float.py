import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.layers.float import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    FloatLayers,
    Layers,
)
from acq.layers.operations import batch_statistics, convolution, same_padding
from common.devices import AXIS
from tests.acq.models.small import random_variables


def _random(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def _normalised(variables, x, mean, var, epsilon):
    x, mean, var = np.asarray(x), np.asarray(mean), np.asarray(var)
    scale, bias = (np.asarray(variables["params"][k]) for k in ("scale", "bias"))
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


@pytest.mark.parametrize(
    ("size", "strides", "padding", "groups", "use_bias"),
    [
        (3, 1, 1, 1, False),
        (3, 2, 1, 1, True),
        (7, 2, 3, 1, False),
        (1, 2, 0, 1, False),
        (2, 1, 2, 1, False),
        (3, 1, 1, 4, True),
        (3, 2, 1, 4, False),
        (2, 1, 1, 4, False),
        (3, 1, 0, 2, False),
        (3, 1, 0, 4, False),
        (3, 2, ((0, 1), (1, 1)), 1, False),
        (5, 2, ((1, 2), (2, 2)), 4, True),
        (3, 2, ((0, 1), (0, 0)), 4, False),
        (5, 1, ((2, 1), (0, 2)), 4, False),
        (3, 2, ((2, 0), (0, 1)), 4, False),
        (4, 2, ((1, 1), (1, 1)), 4, False),
    ],
)
def test_conv_is_that_of_flax_with_the_same_parameters(
    size, strides, padding, groups, use_bias
):
    conv = Conv(8 if groups != 4 else 4, size, strides, padding, groups, use_bias)
    flax_conv = nn.Conv(
        conv.features,
        (size, size),
        (strides, strides),
        padding,
        feature_group_count=groups,
        use_bias=use_bias,
    )
    x = _random(2, 9, 8, 4)
    variables = random_variables(flax_conv, x)
    ours = jax.eval_shape(conv.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, ours)
    y, expected = conv.apply(variables, x), flax_conv.apply(variables, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("image", [(8, 8), (9, 8), (7, 10), (1, 2)])
@pytest.mark.parametrize(("size", "strides"), [(3, 2), (5, 2), (5, 1), (1, 2), (2, 3)])
def test_same_padding_is_that_of_tensorflow(image, size, strides):
    x, kernel = _random(1, *image, 2), _random(size, size, 2, 3)
    # lax has TensorFlow's rule by its name.
    expected = jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    found = convolution(x, kernel, strides, same_padding(image, size, strides), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_equal_sides_of_padding_are_one_number():
    assert same_padding((8, 6), 5, 1) == 2
    assert same_padding((7, 9), 3, 2) == 1
    assert same_padding((8, 7), 3, 2) == ((0, 1), (1, 1))


def test_dense_is_an_affine_map():
    x, dense = _random(3, 5), Dense(2)
    variables = random_variables(dense, x)
    params = variables["params"]
    np.testing.assert_allclose(
        dense.apply(variables, x), x @ params["kernel"] + params["bias"][None], 1e-6
    )


@pytest.mark.parametrize(
    ("kind", "expected", "slope"),
    [
        ("relu", [0, 0, 2, 6, 9], [0, 0, 1, 1, 1]),
        ("relu6", [0, 0, 2, 6, 6], [0, 0, 1, 0, 0]),
        ("identity", [-3, 0, 2, 6, 9], [1, 1, 1, 1, 1]),
    ],
)
def test_activations_and_their_gradients(kind, expected, slope):
    x = jnp.array([[-3.0, 0, 2, 6, 9]])
    y, pull_back = jax.vjp(lambda x: Activation(kind).apply({}, x), x)
    np.testing.assert_array_equal(y, [expected])
    np.testing.assert_array_equal(pull_back(jnp.ones((1, 5)))[0], [slope])


def test_batchnorm_in_eval_uses_running_statistics_and_tells_the_batchs():
    x, norm = _random(4, 3, 5, 2), BatchNorm()
    variables = random_variables(norm, x)
    stats = variables["batch_stats"]
    y, sown = norm.apply(variables, x, mutable=["bn_inputs", "batch_stats"])
    expected = _normalised(variables, x, stats["mean"], stats["var"], 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, sown["batch_stats"], stats)
    found = sown["bn_inputs"]
    np.testing.assert_allclose(found["mean"], np.mean(x, (0, 1, 2)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["var"], np.var(x, (0, 1, 2)), rtol=1e-5)


def test_batchnorm_in_train_uses_the_batchs_and_moves_the_running_ones_by_a_tenth():
    x, norm = _random(4, 3, 5, 2), BatchNorm(epsilon=0.8)
    variables = random_variables(norm, x)
    stats = variables["batch_stats"]
    y, sown = norm.apply(variables, x, True, mutable=["bn_inputs", "batch_stats"])
    mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    expected = _normalised(variables, x, mean, var, 0.8)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    unbiased = var * 60 / 59
    for name, batch in (("mean", mean), ("var", unbiased)):
        np.testing.assert_allclose(
            sown["batch_stats"][name], 0.9 * stats[name] + 0.1 * batch, rtol=1e-5
        )
    np.testing.assert_allclose(sown["bn_inputs"]["var"], var, rtol=1e-5)
    np.testing.assert_allclose(norm.apply(variables, x, True), y, rtol=1e-6)


def test_variance_of_values_far_from_zero():
    x = 1e4 + _random(64, 8, 8, 1)
    _, var = batch_statistics(x, None)
    exact = np.var(np.asarray(x, np.float64))
    np.testing.assert_allclose(var, [exact], rtol=1e-3)


@pytest.mark.slow
def test_devices_share_the_statistics_of_the_joined_batch():
    x = _random(8, 2, 2, 3)
    variables = random_variables(BatchNorm(), x)

    def outputs(norm, x):
        return norm.apply(variables, x, True, mutable=["bn_inputs", "batch_stats"])

    def loss(x, norm):
        y, sown = outputs(norm, x)
        stats = sown["bn_inputs"]
        value = jnp.mean(y**3) + jnp.sum(stats["var"] ** 2 * stats["mean"])
        return value, (y, sown)

    def both(norm):
        return lambda x: jax.grad(loss, has_aux=True)(x, norm)

    gradient, (y, sown) = jax.jit(both(BatchNorm()))(x)
    shards = x.reshape(4, 2, 2, 2, 3)
    found = jax.pmap(both(BatchNorm(axis_name=AXIS)), axis_name=AXIS)(shards)
    close = {"rtol": 1e-5, "atol": 1e-6}
    # Seen from one device's images the loss is the sum of the devices' losses.
    np.testing.assert_allclose(found[0].reshape(x.shape), 4 * gradient, **close)
    np.testing.assert_allclose(found[1][0].reshape(y.shape), y, **close)
    jax.tree.map(
        lambda ours, expected: [
            np.testing.assert_allclose(device, expected, **close) for device in ours
        ],
        jax.device_get(found[1][1]),
        sown,
    )


def test_initialising_moves_and_tells_nothing():
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), 5 + _random(2, 2, 2, 1), True)
    assert set(variables) == {"params", "batch_stats"}
    stats = variables["batch_stats"]
    np.testing.assert_array_equal([stats["mean"], stats["var"]], [[0], [1]])


def test_layers_refuse():
    x = jnp.zeros((1, 1, 1, 6))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"more than one value.*\(1, 1, 1, 6\)"):
        norm.apply(variables, x, True, mutable=["batch_stats"])
    with pytest.raises(ValueError, match=r"4 groups must divide .* in \(6\)"):
        Conv(8, 1, groups=4).init(jax.random.key(0), x)


def test_float_layers_fulfil_the_protocol_and_are_static():
    layers = FloatLayers()
    assert isinstance(layers, Layers)
    assert hash(layers) == hash(FloatLayers())
    assert layers != FloatLayers(axis_name=AXIS)
    assert layers.batch_norm(epsilon=0.8, name="n").epsilon == 0.8
