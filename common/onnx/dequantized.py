"""Integers of a kernel and a bias, as the floats that a convolution takes.

A bias has no scale of its own in the file: the graph multiplies two others, which
runtimes do once as they load it. It was 2 % of the file of an EfficientNet-Lite0.
"""

from typing import NamedTuple

import numpy as np

from common.onnx.graph import Graph


class Dequantized(NamedTuple):
    """Names of a tensor of floats and of the scale of each output channel."""

    floats: str
    scale: str


def add_kernel(
    graph: Graph, codes: np.ndarray, scale: np.ndarray, name: str, axis: int
) -> Dequantized:
    """Adds an int8 kernel with zero point 0.

    Args:
      graph: to which it is added.
      codes: int8.
      scale: float32, of each output channel.
      name: of the kernel.
      axis: of the output channels.
    """
    zeros = np.zeros(scale.shape, codes.dtype)
    scale_name = graph.constant(scale, f"{name}_scale")
    inputs = [
        graph.constant(codes, name),
        scale_name,
        # One name, so that kernels of as many channels share them.
        graph.constant(zeros, "kernel_zero_point"),
    ]
    floats = graph.node("DequantizeLinear", inputs, f"{name}_floats", axis=axis)
    return Dequantized(floats, scale_name)


def add_bias(
    graph: Graph, codes: np.ndarray, input_scale: str, kernel_scale: str, name: str
) -> str:
    """Adds an int32 bias in steps of the input's scale times the kernel's.

    Args:
      graph: to which it is added.
      codes: int32, (channels,).
      input_scale: name of the constant.
      kernel_scale: name of the constant, (channels,).
      name: of the bias.

    Returns:
      The name of the floats.
    """
    scale = graph.node("Mul", [input_scale, kernel_scale], f"{name}_scale")
    inputs = [graph.constant(codes, name), scale]
    return graph.node("DequantizeLinear", inputs, f"{name}_floats", axis=0)
