import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from acq.kernels.grid import Grid
from acq.layers.float import FloatLayers
from acq.layers.integer import (
    IntegerLayers,
    integer_layers,
    to_integers,
)
from common.errors import UserError
from tests.acq.quantized import create, quant_layers, quantized


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype == np.float32
    np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bits", "symmetric", "others"),
    [
        ("own", 2, False, None),
        ("own", 8, False, 4),
        ("cifar", 4, False, None),
        pytest.param("own", 3, True, 8, marks=pytest.mark.slow),
        pytest.param("mobilenet", 8, False, 8, marks=pytest.mark.slow),
        pytest.param("efficientnet_lite", 8, True, 8, marks=pytest.mark.slow),
        pytest.param("vgg", 5, False, None, marks=pytest.mark.slow),
        pytest.param("bottleneck", 7, False, 7, marks=pytest.mark.slow),
        pytest.param("basic", 8, True, None, marks=pytest.mark.slow),
    ],
)
def test_logits_are_those_of_the_fake_quantized_network(name, bits, symmetric, others):
    layers = quant_layers(bits, symmetric=symmetric, others=others)
    network, variables, x = quantized(name, layers)
    integer_network, stored = to_integers(network, variables, x[:1])
    for ours, theirs in zip(
        jax.jit(integer_network.apply)(stored, x),
        jax.jit(network.apply)(variables, x),
        strict=True,
    ):
        same_bits(ours, theirs)


@pytest.mark.slow
def test_the_same_without_jit():
    network, variables, x = quantized("own", quant_layers(8, others=4))
    integer_network, stored = to_integers(network, variables, x[:1])
    same_bits(integer_network.apply(stored, x)[0], network.apply(variables, x)[0])


def test_integers_are_bytes_with_scales_and_nothing_float_is_left_of_kernels():
    network, variables, x = quantized("own", quant_layers(8, others=4))
    _, stored = to_integers(network, variables, x[:1])
    dtypes = {"/".join(k): v.dtype for k, v in flatten_dict(stored["integers"]).items()}
    assert dtypes == {
        f"{layer}/{leaf}": np.dtype(np.float32 if leaf == "scale" else np.uint8)
        for layer, leaves in {
            **dict.fromkeys(["conv0", "conv1", "conv2", "head"], ("kernel",)),
            **dict.fromkeys(
                ["act0", "act1", "act2", "quant_input", "quant_pooled"], ()
            ),
        }.items()
        for leaf in (*leaves, "scale", "zero_point")
    }
    assert set(stored) == {"params", "batch_stats", "integers"}
    assert set(flatten_dict(stored["params"])) == set(
        flatten_dict(variables["params"])
    ) - {(layer, "kernel") for layer in ("conv0", "conv1", "conv2", "head")}


def test_variables_have_the_shapes_that_the_network_tells():
    network, variables, x = quantized("own", quant_layers(8, others=4))
    integer_network, stored = to_integers(network, variables, x[:1])
    told = jax.eval_shape(integer_network.init, jax.random.key(0), x)
    expected = jax.tree.map(lambda a: (a.shape, a.dtype), stored)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), told) == expected


@pytest.mark.slow
@pytest.mark.slow
def test_a_float_network_and_ranges_never_observed_are_refused():
    network, variables, x = quantized("own", quant_layers(8, others=4))
    with pytest.raises(TypeError, match="only a network of QuantLayers"):
        to_integers(create("own", FloatLayers()), variables, x)
    never = {"low": jnp.float32(jnp.nan), "high": jnp.float32(jnp.nan)}
    variables = {**variables, "ranges": {**variables["ranges"], "act1": never}}
    with pytest.raises(UserError, match="no finite scale at act1: "):
        to_integers(network, variables, x)


def test_layers_of_integers_have_the_same_grids():
    expected = IntegerLayers(Grid(4, True), Grid(4, True), Grid(8))
    assert integer_layers(quant_layers(4, symmetric=True, others=8)) == expected
    assert integer_layers(quant_layers(4)).others is None
