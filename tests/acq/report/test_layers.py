import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.integer_codes import from_codes
from acq.layers.float import FloatLayers
from acq.report.layers import stored_layers
from tests.acq.report.made_up_run import (
    CHANNELS,
    CLASSES,
    TwoLayers,
    quantized,
    quantized_one_layer,
)


def test_ranges_are_those_of_the_codes():
    conv, fc = stored_layers(quantized()).weights
    assert (conv.name, conv.kind, conv.bits) == ("conv", "convolution", 4)
    scale = 0.1 * np.arange(1, CHANNELS + 1)
    np.testing.assert_allclose(conv.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(conv.low, -3 * scale, rtol=1e-6)
    np.testing.assert_allclose(conv.high, 4 * scale, rtol=1e-6)
    assert (fc.name, fc.kind, fc.bits) == ("fc", "dense", 8)
    np.testing.assert_allclose(fc.low, -127 * 0.01, rtol=1e-6)
    np.testing.assert_allclose(fc.high, 128 * 0.01, rtol=1e-6)


def test_ranges_of_activations_are_those_of_their_grids():
    (act,) = stored_layers(quantized()).values
    assert (act.name, act.kind, act.bits) == ("act", "activation", 3)
    assert (act.low, act.high, act.scale) == (0, 3.5, 0.5)


def test_other_tensors_are_there_if_they_are_quantized():
    first, second = stored_layers(quantized(other_bits=8)).values
    assert (first.name, first.kind, first.bits) == ("input", "other tensor", 8)
    assert (first.low, first.high) == pytest.approx((-2.0, 3.1))
    assert second.name == "act"


@pytest.mark.slow
def test_the_ranges_of_weights_are_those_the_network_computes_with():
    found = quantized()
    for one in stored_layers(found).weights:
        codes = found.variables["integers"][one.name]
        kernel = from_codes(
            *(jnp.asarray(codes[leaf]) for leaf in ("kernel", "scale", "zero_point"))
        )
        axes = tuple(range(kernel.ndim - 1))
        np.testing.assert_allclose(np.min(kernel, axes), one.low, rtol=1e-6)
        np.testing.assert_allclose(np.max(kernel, axes), one.high, rtol=1e-6)


def test_sizes_are_those_of_the_arrays():
    found = quantized()
    layers = stored_layers(found)
    conv, fc = layers.weights
    assert conv.count == 27 * CHANNELS and fc.count == CHANNELS * CLASSES
    assert conv.float_bytes == 4 * conv.count and conv.stored_bytes == conv.count
    assert conv.packed_bytes == conv.count / 2 and fc.packed_bytes == fc.count
    stored = sum(leaf.nbytes for leaf in jax.tree.leaves(found.variables))
    assert layers.sizes["stored"].total == stored
    shapes = jax.eval_shape(
        TwoLayers(FloatLayers(), CLASSES).init,
        jax.random.key(0),
        jnp.zeros((1, 8, 8, 3)),
    )
    floats = sum(4 * leaf.size for leaf in jax.tree.leaves(shapes))
    assert layers.sizes["float32"].total == floats
    assert layers.sizes["packed"].weights == conv.packed_bytes + fc.packed_bytes
    assert layers.sizes["packed"].constants == layers.sizes["stored"].constants


def test_a_network_of_one_layer_has_no_activations():
    layers = stored_layers(quantized_one_layer())
    assert [one.name for one in layers.weights] == ["fc"] and not layers.values


def test_a_float_network_is_refused():
    found = quantized()
    with pytest.raises(TypeError, match="only a network of IntegerLayers"):
        stored_layers(
            type(found)(
                network=TwoLayers(FloatLayers(), CLASSES),
                variables=found.variables,
                record=found.record,
                manifest={},
            )
        )
