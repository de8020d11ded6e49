import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import Grid
from acq.layers.float import Conv, Dense
from acq.layers.quantized import (
    QuantActivation,
    QuantConv,
    QuantDense,
    Quantizer,
    QuantLayers,
    average_ranges,
    kernel_range,
    learning_rate_factor,
)
from tests.acq.quantized import create, float_variables, quant_layers, quantized

FOUR_BITS = Quantizer(Grid(4))
NAN = float("nan")


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def paths(tree):
    return {"/".join(path) for path in flatten_dict(tree)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quant", "plain", "x"),
    [
        (
            QuantConv(6, 3, padding=1, use_bias=True, quantizer=FOUR_BITS),
            Conv(6, 3, padding=1, use_bias=True),
            random(1, 4, 5, 3),
        ),
        (QuantDense(6, quantizer=FOUR_BITS), Dense(6), random(2, 7)),
    ],
    ids=["conv", "dense"],
)
def test_kernel_is_rounded_per_output_channel_and_bias_is_not(quant, plain, x):
    variables = jax.jit(plain.init)(jax.random.key(0), x)
    params = {**variables["params"], "bias": random(6, seed=1)}
    low, high = kernel_range(params["kernel"])
    np.testing.assert_array_equal(
        low, np.asarray(params["kernel"]).reshape(-1, 6).min(0)
    )
    rounded = fake_quant(params["kernel"], low, high, grid=Grid(4), gradient="identity")
    for channel in np.moveaxis(np.asarray(rounded), -1, 0):
        assert 8 < len(np.unique(channel)) <= 16 or channel.size < 16
    y = quant.apply({"params": params}, x)
    expected = plain.apply({"params": {**params, "kernel": rounded}}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cifar_projection", "efficientnet_lite", "mobilenet", "vgg"]
)
def test_every_convolution_and_dense_layer_is_quantized(name):
    network = create(name, quant_layers(4))
    variables, x = float_variables(name)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    integers = jax.eval_shape(
        lambda v, x: network.apply(v, x, mutable=["integers"])[1]["integers"],
        {**variables, "ranges": shapes["ranges"]},
        x,
    )
    kernels = {p for p in paths(variables["params"]) if p.endswith("/kernel")}
    assert kernels == {p for p in paths(integers) if p.endswith("/kernel")}
    assert len(kernels) > 5
    # Trained and published weights fit the student.
    assert paths(shapes["params"]) == paths(variables["params"])


def test_identity_marks_are_quantized_only_where_asked_for():
    plain, marked = (
        quantized("own", quant_layers(4, others=others))[1]["ranges"]
        for others in (None, 8)
    )
    activations = {f"act{i}" for i in range(3)}
    assert set(plain) == activations
    assert set(marked) == activations | {"quant_input", "quant_pooled"}
    assert all(set(ends) == {"low", "high"} for ends in marked.values())


@pytest.mark.slow
def test_kernels_and_activations_are_on_grids_of_their_own():
    layers = QuantLayers(FOUR_BITS, Quantizer(Grid(3)), Quantizer(Grid(8)))
    network, variables, x = quantized("own", layers)
    (logits, features), sown = jax.jit(
        lambda v, x: network.apply(v, x, mutable=["integers", "observed"])
    )(variables, x)
    assert np.all(np.isfinite(logits))
    scale = sown["integers"]["act2"]["scale"]
    steps = np.asarray(features) / np.asarray(scale)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)
    assert 4 < len(np.unique(np.round(steps))) <= 8
    codes = np.asarray(sown["integers"]["conv1"]["kernel"]).reshape(-1, 8)
    assert codes.dtype == np.int8
    np.testing.assert_array_equal(np.ptp(codes, axis=0), np.full(8, 15))
    assert jax.tree.structure(sown["observed"]) == jax.tree.structure(
        variables["ranges"]
    )
    last = sown["observed"]["act2"]
    assert float(last["low"]) == 0 and 1 < float(last["high"]) < 9


@pytest.mark.slow
def test_gradients_of_parameters_and_learned_ranges_are_finite_and_not_zero():
    layers = quant_layers(4, gradient="learned", others=8)
    network, variables, x = quantized("own", layers)

    @jax.jit
    def gradient(trained, rest, x):
        def loss(trained):
            logits, _ = network.apply({**rest, **trained}, x)
            return jnp.mean(jnp.sin(logits))

        return jax.grad(loss)(trained)

    trained = {k: variables.pop(k) for k in ("params", "ranges")}
    gradients = gradient(trained, variables, x)
    for path, leaf in flatten_dict(gradients).items():
        assert np.all(np.isfinite(leaf)), path
        # A rectifier has nothing below its low end, which stays.
        stays = path[-1] == "low" and path[-2].startswith("act")
        assert np.any(leaf != 0) == (not stays), path


def test_a_pass_reads_ranges_and_does_not_change_them():
    activation = QuantActivation("relu", quantizer=FOUR_BITS)
    x = jnp.asarray([[-1.0, 0.1, 0.26, 7]])
    ranges = {"low": jnp.float32(0), "high": jnp.float32(3)}
    y, changed = activation.apply({"ranges": ranges}, x, mutable=["ranges", "observed"])
    np.testing.assert_allclose(y, [[0, 0, 0.2, 3]], rtol=1e-6)
    assert changed["ranges"] == ranges
    assert {k: float(v) for k, v in changed["observed"].items()} == {
        "low": 0,
        "high": 7,
    }


def test_ranges_never_observed_are_the_batchs_where_it_is_and_nan_elsewhere():
    activation = QuantActivation("relu6", quantizer=FOUR_BITS)
    x = jnp.linspace(-1, 9, 7).reshape(1, 7)
    variables = jax.jit(activation.init)(jax.random.key(0), x)
    assert set(variables) == {"ranges"}
    assert all(np.isnan(variables["ranges"][end]) for end in ("low", "high"))
    y, _ = activation.apply(variables, x, mutable=["observed"])
    np.testing.assert_allclose(y.max(), 6, rtol=1e-6)
    assert np.all(np.isfinite(y))
    assert np.all(np.isnan(activation.apply(variables, x)))


@pytest.mark.slow
def test_observed_ranges_are_those_of_all_devices():
    activation = QuantActivation("identity", quantizer=FOUR_BITS, axis_name="devices")
    x = random(3, 2, 4)
    variables = {"ranges": {"low": jnp.float32(-9), "high": jnp.float32(9)}}
    seen = jax.vmap(
        lambda x: activation.apply(variables, x, mutable=["observed"])[1]["observed"],
        axis_name="devices",
    )(x)
    np.testing.assert_array_equal(seen["low"], np.full(3, x.min()))
    np.testing.assert_array_equal(seen["high"], np.full(3, x.max()))


def test_average_starts_at_the_first_observation():
    def tree(low, high):
        return {"act": {"low": jnp.float32(low), "high": jnp.float32(high)}}

    ranges = average_ranges(tree(NAN, NAN), tree(-1, 3), 0.9)
    assert ranges == tree(-1, 3)
    ranges = average_ranges(ranges, tree(-2, 13), 0.9)
    np.testing.assert_allclose(ranges["act"]["low"], -1.1, rtol=1e-6)
    np.testing.assert_allclose(ranges["act"]["high"], 4, rtol=1e-6)


def test_a_step_on_a_learned_end_moves_the_scale_as_lsq_does():
    grid, count, gradient_of_scale, rate = Grid(4), 100, 0.3, 0.01
    lsq_step = rate * gradient_of_scale / np.sqrt(count * grid.qmax)
    # high = qmax s.
    gradient_of_high = gradient_of_scale / grid.qmax
    step = rate * gradient_of_high * learning_rate_factor(count, grid)
    np.testing.assert_allclose(step / grid.qmax, lsq_step)


def test_kernels_cannot_learn_ranges():
    with pytest.raises(ValueError, match="'identity' or 'clipped', got 'learned'"):
        QuantLayers(Quantizer(Grid(4), "learned"), FOUR_BITS)
