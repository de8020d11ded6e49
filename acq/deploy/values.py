"""A layer of a classifier whose node waits for what follows it."""

from typing import NamedTuple

import numpy as np

from acq.deploy.trace import ConvLayer, DenseLayer
from common.onnx.sizes import Side
from common.onnx.values import Summed, Tensor


class Affine(NamedTuple):
    """A convolution or dense layer that is not in the graph yet, and what follows it.

    Batch normalisation changes factor and shift, so that it needs no node.

    Attributes:
      layer: of the kernel.
      x: its input.
      factor: of each output channel.
      shift: of each output channel.
      shape: of the result.
      norm: path of the last normalisation in it; None without one.
    """

    layer: ConvLayer | DenseLayer
    x: Tensor
    factor: np.ndarray
    shift: np.ndarray
    shape: tuple[Side, ...]
    norm: str | None = None


Value = Tensor | Affine | Summed | np.ndarray
"""A tensor of the network, or a constant with its axes."""
