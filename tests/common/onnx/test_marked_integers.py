"""Marked convolutions of a graph, computed with integers."""

from importlib.util import find_spec

import numpy as np
import onnxruntime
import pytest

from common.errors import UserError
from common.image_network import Rounding
from common.onnx.graph import Graph
from common.onnx.integers import mark_of, with_integers
from common.onnx.openvino import compile_onnx
from common.onnx.package import onnx_model
from tests.common.onnx.openvino_precisions import precisions

OPENVINO = pytest.mark.skipif(not find_spec("openvino"), reason="no openvino")
CHANNELS = 3
ROUNDING = Rounding(
    scale=0.02,
    zero_point=64,
    highest=127,
    weight_scale=np.float32([0.01, 0.02, 0.03]),
    weight_bits=4,
)


def graph_of(*, factor=(2.0, -0.5, 0.0), again=False, marked=True):
    """Returns a convolution with batch normalisation, and its kernel and codes."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (CHANNELS, 2, 3, 3))
    kernel = np.float32(codes * ROUNDING.weight_scale.reshape(-1, 1, 1, 1))
    graph = Graph("x", "y")
    name = graph.node("Identity", ["x"], mark_of("conv")) if marked else "x"
    name = graph.node(
        "Conv", [name, graph.constant(kernel, "kernel")], "conv", pads=[1, 1, 1, 1]
    )
    for kind, values in (
        ("Add", (0.5, -0.25, 0.125)),
        ("Mul", factor),
        ("Add", (0.1, 0.2, 0.3)),
    ):
        constant = np.float32(values).reshape(1, -1, 1, 1)
        name = graph.node(kind, [name, graph.constant(constant, "constant")], kind)
    if again:
        name = graph.node("Add", [name, "conv"], "again")
    graph.finish(graph.node("Relu", [name], "relu"))
    return graph


def content(graph):
    """Returns the graph as the content of an ONNX file."""
    return onnx_model(
        graph,
        ("n", 2, "h", "w"),
        ("n", CHANNELS, "h", "w"),
        name="test",
        producer="test",
        description="",
    ).SerializeToString()


def run(graph, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content(graph), options)
    return session.run(None, {"x": x})[0]


def run_openvino(graph, x):
    """Returns OpenVINO's result; its convolution takes integers."""
    network = compile_onnx(content(graph))
    assert precisions(network) == {"u8": 1}
    return network(x)[0]


def bias_scale(graph):
    """Returns the product of two constants that the graph has for it."""
    (product,) = (node for node in graph.nodes if node.output == "conv/bias_scale")
    assert product.kind == "Mul" and product.inputs == ("scale", "conv/kernel_scale")
    return graph.constants["scale"] * graph.constants["conv/kernel_scale"]


def rounded(x):
    """Returns the input's values on its grid of 7 bits."""
    codes = np.clip(np.rint(x / ROUNDING.scale) + ROUNDING.zero_point, 0, 127)
    return np.float32((codes - ROUNDING.zero_point) * ROUNDING.scale)


@pytest.mark.parametrize(
    ("again", "run_integers"),
    [(False, run), (True, run), pytest.param(False, run_openvino, marks=OPENVINO)],
)
def test_the_graph_computes_the_rounded_layer(again, run_integers):
    x = np.random.default_rng(1).normal(0, 0.6, (2, 2, 8, 8)).astype(np.float32)
    found = run_integers(with_integers(graph_of(again=again), {"conv": ROUNDING}), x)
    want = run(graph_of(again=again), rounded(x))
    # A bias is rounded to a step of the input's scale times the weight's.
    step = ROUNDING.scale * ROUNDING.weight_scale * 2
    np.testing.assert_array_less(
        np.abs(found - want).max(axis=(0, 2, 3)), np.maximum(step, 1e-6)
    )


def test_normalisation_goes_into_scales_and_biases():
    graph = with_integers(graph_of(), {"conv": ROUNDING})
    kinds = [node.kind for node in graph.nodes]
    assert kinds == [
        *("QuantizeLinear", "Clip", "DequantizeLinear"),
        *("DequantizeLinear", "Mul", "DequantizeLinear"),
        *("Conv", "Relu", "Identity"),
    ]
    values = graph.constants
    codes = values["conv/kernel"]
    assert codes.dtype == np.int8 and np.abs(codes).max() <= 7
    assert not codes[2].any()  # its factor is 0
    np.testing.assert_allclose(values["conv/kernel_scale"], [0.02, 0.01, 0.03])
    bias = values["conv/bias"]
    assert bias.dtype == np.int32
    np.testing.assert_allclose(bias * bias_scale(graph), [1.1, 0.325, 0.3], atol=3e-4)


def test_a_channel_whose_bias_is_too_large_for_int32_keeps_it():
    tiny = graph_of(factor=(1e-12, 1.0, 1.0))
    graph = with_integers(tiny, {"conv": ROUNDING})
    bias = graph.constants["conv/bias"] * bias_scale(graph)
    np.testing.assert_allclose(bias[0], 0.1, rtol=1e-6)


def test_a_result_that_is_used_twice_is_not_folded():
    graph = with_integers(graph_of(again=True), {"conv": ROUNDING})
    kinds = [node.kind for node in graph.nodes]
    assert kinds.count("Add") == 3 and kinds.count("Mul") == 1


def test_fewer_bits_clip_the_codes():
    graph = with_integers(graph_of(), {"conv": ROUNDING._replace(highest=255)})
    assert "Clip" not in [node.kind for node in graph.nodes]


def test_marks_and_roundings_must_belong_together():
    with pytest.raises(UserError, match=r"^other: cannot be computed with integers"):
        with_integers(graph_of(), {"conv": ROUNDING, "other": ROUNDING})
    with pytest.raises(UserError, match=r"^conv: cannot be computed with integers"):
        with_integers(graph_of(), {})
    with pytest.raises(UserError, match=r"^conv: .* must reach one convolution"):
        with_integers(graph_of(marked=False), {"conv": ROUNDING})
