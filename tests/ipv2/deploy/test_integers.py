"""Denoisers with integers in their convolutions: onnxruntime computes what we do."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from acq.denoisers.bits import NetworkBits, convolutions_of
from acq.denoisers.ranges import ranges_of_images
from acq.denoisers.rounding import apply_rounded, roundings_of, settled
from common.image_network import ImageNetwork, Quantized
from common.onnx.package import onnx_model
from ipv2.deploy.network_graph import denoiser_graph
from tests.ipv2.deploy.small_networks import noisy, run, trained

HERE = "tests.ipv2.deploy.small_networks"


def as_image_network(network):
    return ImageNetwork(
        name=network.name,
        module=network.spec._network(),
        variables=network.variables,
        channels=network.slices,
        low=-1.0,
        high=2.0,
        stored=(-1.024, 3.071),
        multiple=network.stride,
        identity={},
        images=lambda *_: None,
        kinds={},
        judge=lambda _: {},
        warnings=(),
        views=lambda _: [],
        to_hu=lambda unit: 1000 * unit,
        write=lambda *_: None,
    )


def quantized_of(network, hu, weight_bits, activation_bits):
    """Returns the quantized network, and its outputs in HU by our own forward."""
    found = as_image_network(network)
    convolutions = convolutions_of(found, 32)
    names = tuple(c.name for c in convolutions)
    bits = NetworkBits(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        first_last_bits=8,
        names=names,
    )
    images = jnp.asarray(hu / 1000)
    ranges = ranges_of_images(found, bits, [images], method="minmax")
    variables = settled({**found.variables, "ranges": ranges}, bits, convolutions)
    apply = jax.jit(lambda v, x: apply_rounded(found.module, v, x, bits)[0])
    ours = np.asarray(apply(variables, images))[..., 0] * 1000
    del variables["ranges"]
    quantized = Quantized(variables, roundings_of(ranges, bits), {"weight_bits": 8})
    return quantized, ours, bits


def content_of(network, quantized):
    found = denoiser_graph(network, quantized)
    model = onnx_model(
        found.graph,
        ("n", network.slices, "h", "w"),
        ("n", 1, "h", "w"),
        name="denoiser",
        producer="ipv2",
        description="",
    )
    return model


def assert_close(found, ours, want_float):
    """The same integers, but for sums that lie within float32's error of a half.

    Such a value gets the one code or the other, and the next layers pass it on.
    """
    rounding = np.abs(ours - want_float).mean()
    difference = np.abs(found - ours)
    print(rounding, difference.mean(), difference.max(), np.mean(difference > 0.02))
    assert rounding > 0.1
    assert np.mean(difference > 0.02) < 0.02
    assert difference.max() < 10 * rounding


@pytest.mark.parametrize(
    ("name", "attributes", "bits"),
    [
        pytest.param("dncnn", {"width": 8, "depth": 4}, (8, 8), marks=pytest.mark.slow),
        pytest.param("dncnn", {"width": 8, "depth": 4}, (4, 4), marks=pytest.mark.slow),
        *(
            pytest.param(name, attributes, bits, marks=pytest.mark.slow)
            for name, attributes in (
                ("unet", {"width": 4, "levels": 1, "norm": "batch"}),
                (
                    "nafnet",
                    {
                        "width": 4,
                        "encoder_blocks": (1,),
                        "middle_blocks": 1,
                        "decoder_blocks": (1,),
                        "norm": "batch",
                    },
                ),
                ("redcnn", {"width": 4}),
                ("cnn10", {"residual": True}),
            )
            for bits in ((8, 8), (4, 6))
        ),
    ],
)
def test_onnxruntime_computes_our_rounded_network(name, attributes, bits):
    network = trained(name, **attributes)
    hu = noisy(2, 32, 48, 1)
    quantized, ours, grids = quantized_of(network, hu, *bits)
    model = content_of(network, quantized)
    found = run(model.SerializeToString(), hu)
    want = np.asarray(
        jax.jit(network.spec._network().apply)(network.variables, hu / 1000)
    )
    assert_close(found, ours, want[..., 0] * 1000)
    kernels = [c for c in model.graph.initializer if c.name.endswith("/kernel")]
    assert len(kernels) == len(grids.names)
    for kernel in kernels:
        codes = onnx.numpy_helper.to_array(kernel)
        assert codes.dtype == np.int8 and np.abs(codes).max() <= 127
    highest = max(np.abs(onnx.numpy_helper.to_array(c)).max() for c in kernels[1:-1])
    assert highest == 2 ** (bits[0] - 1) - 1


@pytest.mark.slow
def test_biases_are_int32_in_steps_of_input_times_weight():
    network = trained("dncnn", width=8, depth=4)
    quantized, _, _ = quantized_of(network, noisy(1, 32, 32, 1), 8, 8)
    model = content_of(network, quantized)
    values = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 4
    for node in convolutions[:-1]:
        x, kernel, bias = (made[name] for name in node.input)
        assert values[bias.input[0]].dtype == np.int32
        step = made[bias.input[1]]
        assert step.op_type == "Mul"
        assert list(step.input) == [x.input[1], kernel.input[1]]


@pytest.mark.slow
def test_all_but_the_last_convolution_of_a_dncnn_are_integer_kernels(tmp_path):
    network = trained("dncnn", width=8, depth=4)
    quantized, _, _ = quantized_of(network, noisy(1, 32, 32, 1), 8, 8)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.onnx")
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    )
    options.log_severity_level = 3
    content = content_of(network, quantized).SerializeToString()
    onnxruntime.InferenceSession(content, options)
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    found = collections.Counter(node.op_type for node in nodes)
    assert found["QLinearConv"] == 3
