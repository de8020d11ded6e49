"""Bits of single layers: parsed, matched, used for rounding, stored, reported."""

import itertools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from acq.export import load_quantized
from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import Grid
from acq.layers.bits import called_layers, choose_bits, parse_layers
from acq.layers.float import FloatLayers
from acq.layers.integer import to_integers
from acq.layers.observed import RangeLayers, ranges_from_images
from acq.layers.quantized import QuantLayers, kernel_range
from acq.tasks.evaluate import evaluate_run
from acq.tasks.quantize import quantize_run
from acq.tasks.tables import format_results, format_runs
from common.errors import UserError
from tests.acq.models.small import SMALL
from tests.acq.quantize_config import make_config
from tests.acq.quantized import create, float_variables, quant_layers, quantized
from tests.acq.tasks.test_tables import RUN


def layers_of(name):
    x = float_variables(name)[1]
    return called_layers(create(name, FloatLayers()), x.shape)


def test_a_dictionary_keeps_its_order():
    assert list(parse_layers("{'b*': 2, 'a': 8}").items()) == [("b*", 2), ("a", 8)]
    assert parse_layers("") == parse_layers(" {} ") == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", *SMALL])
def test_first_and_last_are_found_in_every_network(name):
    """The order of calls decides, not the names."""
    variables, x = float_variables(name)
    kernels = {
        "/".join(path[:-1]): leaf.shape
        for path, leaf in flatten_dict(variables["params"]).items()
        if path[-1] == "kernel"
    }
    chosen = dict(choose_bits({}, 8, layers_of(name), others=True))
    first, last = (kernel for kernel in chosen if kernel in kernels)
    if len(kernels[first]) == 2:
        first, last = last, first
    assert kernels[first][2] == x.shape[-1] and kernels[last][1] == 5
    inputs = [layer for layer in chosen if layer not in kernels]
    expected = "act_classifier_4" if name == "vgg" else "quant_pooled"
    assert sorted(inputs) == sorted(["quant_input", expected])
    without = dict(choose_bits({}, 8, layers_of(name), others=False))
    assert set(without) == {first, last} | ({expected} if name == "vgg" else set())


def test_layers_are_in_the_order_of_their_calls():
    names = [layer.name for layer in layers_of("own")]
    assert names[:3] == ["quant_input", "conv0", "act0"]
    assert names[-3:] == ["act2", "quant_pooled", "head"]


MIXED = (("conv0", 8), ("act1", 2), ("head", 6), ("quant_input", 7))


def with_bits(layers, bits=MIXED):
    return QuantLayers(layers.kernels, layers.activations, layers.others, bits=bits)


@pytest.mark.slow
def test_kernels_are_rounded_on_their_own_grid():
    network, variables, x = quantized("own", with_bits(quant_layers(4, others=5)))
    _, stored = to_integers(network, variables, x[:1])
    for name, bits in (("conv0", 8), ("conv1", 4), ("conv2", 4), ("head", 6)):
        kernel = variables["params"][name]["kernel"]
        low, high = kernel_range(kernel)
        expected = fake_quant(kernel, low, high, grid=Grid(bits), gradient="identity")
        found = stored["integers"][name]
        codes, zero = (found[k].astype(np.float32) for k in ("kernel", "zero_point"))
        channels = (1,) * (codes.ndim - 1) + (-1,)
        zero, scale = (x.reshape(channels) for x in (zero, found["scale"]))
        np.testing.assert_array_equal((codes - zero) * scale, expected)
        assert found["kernel"].dtype == (np.uint8 if bits == 8 else np.int8)


def test_activations_are_rounded_on_their_own_grid():
    network, variables, x = quantized("own", with_bits(quant_layers(4, others=5)))
    _, shown = jax.jit(lambda v, x: network.apply(v, x, mutable=["activations"]))(
        variables, x
    )
    counts = {
        name: len(np.unique(leaves["output"]))
        for name, leaves in shown["activations"].items()
    }
    assert 2 < counts["act1"] <= 2**2
    assert 2**2 < counts["act0"] <= 2**4
    assert 2**5 < counts["quant_input"] <= 2**7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("own", 5),
        pytest.param("cifar", None, marks=pytest.mark.slow),
        pytest.param("mobilenet", 8, marks=pytest.mark.slow),
        pytest.param("vgg", 8, marks=pytest.mark.slow),
    ],
)
def test_integers_give_the_same_logits_by_the_bit(name, others):
    """First and last layer at 8 bits, and every other layer with different bits."""
    layers = layers_of(name)
    spread = dict(zip((x.name for x in layers), itertools.cycle((2, 5, 3, 7, 8))))
    bits = choose_bits(spread, 0, layers, others=True)
    bits = tuple((dict(bits) | dict(choose_bits({}, 8, layers, others=True))).items())
    network, variables, x = quantized(
        name, with_bits(quant_layers(4, others=others), bits)
    )
    integer_network, stored = to_integers(network, variables, x[:1])
    for ours, theirs in zip(
        jax.jit(integer_network.apply)(stored, x),
        jax.jit(network.apply)(variables, x),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    told = jax.eval_shape(integer_network.init, jax.random.key(0), x)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), told) == jax.tree.map(
        lambda a: (a.shape, a.dtype), stored
    )


@pytest.mark.slow
def test_no_bits_of_their_own_are_the_layers_as_they_were():
    layers = quant_layers(4, others=8)
    assert with_bits(layers, ()) == layers
    network, variables, x = quantized("own", layers)
    usual = tuple(
        (layer.name, 8 if layer.kind == "other" else 4) for layer in layers_of("own")
    )
    same = network.clone(layers=with_bits(layers, usual))
    ours, theirs = (jax.jit(n.apply)(variables, x)[0] for n in (same, network))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_ranges_of_least_error_are_those_of_the_layer_s_grid():
    variables, x = float_variables("own")
    network = create("own", FloatLayers())
    found = {
        bits: ranges_from_images(
            network,
            RangeLayers(
                activations=Grid(4), others=None, method="mse", bits=(("act1", bits),)
            ),
            variables,
            [x],
        )
        for bits in (2, 4)
    }
    assert found[2]["act1"]["high"] < found[4]["act1"]["high"]
    for name in ("act0", "act2"):
        assert found[2][name] == found[4][name]


def test_the_table_says_which_layers_differ():
    bits = {
        "weights": {"conv1": 8, "conv2": 4, "fc": 8},
        "activations": {"act1": 3, "act2": 4},
        "others": {},
    }
    run = RUN | {"layer_bits": bits}
    text = format_results(run)
    assert "Layers with bits of their own: conv1 W8, fc W8, act1 A3" in text
    assert "bits of their own" not in format_results(RUN)
    with pytest.raises(ValueError, match="do not compare: layer_bits"):
        format_runs({"acq": [run, RUN]})


@pytest.mark.slow
@pytest.mark.long
def test_a_run_trains_stores_and_tells_them(tmp_path):
    config = make_config(tmp_path)
    config.quantizer.other_bits = 8
    config.quantizer.first_last_bits = 8
    config.quantizer.layers = "{'conv1': 3, 'act1': 2}"
    results = quantize_run(config, tmp_path / "run")
    own = {"conv0": 8, "conv1": 3, "conv2": 4, "head": 8}
    assert results["layer_bits"] == {
        "weights": own,
        "activations": {"act0": 4, "act1": 2, "act2": 4},
        "others": {"quant_input": 8, "quant_pooled": 8},
    }
    loaded = load_quantized(tmp_path / "run" / "export")
    assert loaded.manifest["layer_bits"] == results["layer_bits"]
    for name, bits in own.items():
        codes = np.unique(loaded.variables["integers"][name]["kernel"])
        assert codes.max().astype(int) - codes.min() < 2 * 2**bits
        assert len(codes) > (2**bits) // 4
    # The network is built anew from the export alone, and is the student by the bit.
    found = evaluate_run(config, tmp_path / "run")
    for key in ("correct", "agreement", "kl"):
        assert found["quantized"][key] == results["quantized"][key]


@pytest.mark.slow
def test_layers_that_the_teacher_lacks_are_refused_before_any_work(tmp_path):
    config = make_config(tmp_path)
    config.quantizer.layers = "{'fc': 8}"
    with pytest.raises(
        UserError, match=r"'fc', which matches no layer.* head; .* act0"
    ):
        quantize_run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
