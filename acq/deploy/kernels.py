"""Convolutions and dense layers as ONNX nodes, of floats or of integers.

Integers: codes of kernel and bias are constants, each with a DequantizeLinear. The
runtime makes one integer operation of these, the input's DequantizeLinear, the node and
the QuantizeLinear after it. Kernels are int8 with zero point 0, one scale for each
output channel. Biases are int32, of the input's scale times the kernel's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from acq.deploy.folding import Kernel, fold
from acq.deploy.graph import ClassifierGraph
from acq.deploy.trace import ConvLayer
from acq.deploy.values import Affine
from acq.layers.operations import padded_sides
from common.errors import UserError
from common.onnx.dequantized import add_bias, add_kernel
from common.onnx.graph import Graph
from common.onnx.values import NCHW, Codes, Tensor

Variables = Mapping[str, np.ndarray]
"""The variables of a network by name: 'params/conv1/kernel'."""


def dequantized(graph: Graph, x: Tensor) -> str:
    """Returns the name of the floats of a tensor of codes."""
    assert x.codes is not None, x.name
    scale, zero_point = codes_constants(graph, x.codes)
    return graph.node(
        "DequantizeLinear", [x.name, scale, zero_point], f"{x.name}/floats"
    )


def codes_constants(graph: Graph, codes: Codes) -> tuple[str, str]:
    """Returns the names of scale and zero point."""
    return (
        graph.constant(np.float32(codes.scale), "scale"),
        graph.constant(np.uint8(codes.zero_point), "zero_point"),
    )


def is_integer(variables: Variables, name: str) -> bool:
    """Returns whether a layer's kernel is stored as integers."""
    return f"integers/{name}/kernel" in variables


def add_affine(graph: ClassifierGraph, variables: Variables, value: Affine) -> Tensor:
    """Adds a convolution or dense layer; returns its result, floats.

    Raises:
      UserError: the kernel is of integers and its input is not, or its zero points are
        not 0.
    """
    name, x = value.layer.name, value.x
    if is_integer(variables, name):
        x_floats, kernel, bias = _integer_inputs(graph, variables, value)
    else:
        x_floats = x.name if x.codes is None else dequantized(graph, x)
        floats = variables[f"params/{name}/kernel"] * value.factor
        kernel = graph.constant(_onnx_layout(floats), f"{name}/kernel")
        bias = graph.constant(value.shift.astype(np.float32), f"{name}/bias")
    inputs = [x_floats, kernel, bias]
    if not isinstance(value.layer, ConvLayer):
        output = graph.node("Gemm", inputs, name, transB=1)
        return Tensor(output, (0, 1), value.shape)
    layer = value.layer
    (top, bottom), (left, right) = padded_sides(layer.padding)
    output = graph.node(
        "Conv",
        inputs,
        name,
        strides=[layer.strides] * 2,
        pads=[top, left, bottom, right],
        group=layer.groups,
    )
    return Tensor(output, NCHW, value.shape)


def _folded(variables: Variables, value: Affine) -> Kernel:
    """Returns the integers of a layer with what follows it.

    Raises:
      UserError: the input is not of integers, or zero points are not 0.
    """
    name, x = value.layer.name, value.x
    if x.codes is None:
        raise UserError(
            f"{name}: its input is not quantized, so it cannot be computed with "
            "integers. Put layers.activation('identity', name='quant_...') before it "
            "(acq/models/README.md) and quantize the network again."
        )
    codes, scale, zero_point = (
        variables[f"integers/{name}/{leaf}"]
        for leaf in ("kernel", "scale", "zero_point")
    )
    if np.any(zero_point):
        raise UserError(
            f"{name}: its weights have zero points other than 0, which integer kernels "
            "do not take. Accepted: symmetric weights, or 2 to 7 bits."
        )
    return fold(codes, scale, value.factor, value.shift, x.codes.scale, x.codes.highest)


def _integer_inputs(
    graph: ClassifierGraph, variables: Variables, value: Affine
) -> tuple[str, str, str]:
    """Returns the names of input, kernel and bias, as floats of integers."""
    name, x = value.layer.name, value.x
    kernel = _folded(variables, value)
    graph.kernels.append((value, kernel))
    assert x.codes is not None, name  # `_folded` refuses it
    scale, _ = codes_constants(graph, x.codes)
    floats, kernel_scale = add_kernel(
        graph, _onnx_layout(kernel.codes), kernel.scale, f"{name}/kernel", axis=0
    )
    bias = add_bias(graph, kernel.bias, scale, kernel_scale, f"{name}/bias")
    return dequantized(graph, x), floats, bias


def _onnx_layout(kernel: Any) -> np.ndarray:
    """Returns a kernel with output channels first: OIHW, or (out, in)."""
    kernel = np.asarray(kernel)
    if kernel.dtype != np.int8:
        kernel = kernel.astype(np.float32)
    return kernel.transpose((3, 2, 0, 1) if kernel.ndim == 4 else (1, 0))
