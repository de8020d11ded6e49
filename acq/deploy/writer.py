"""The writer of a classifier's graph: quantized tensors, and layers that wait."""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from acq.deploy.graph import ClassifierGraph
from acq.deploy.kernels import add_affine, dequantized, is_integer
from acq.deploy.trace import ActivationLayer, ConvLayer
from acq.deploy.values import Affine
from common.errors import UserError
from common.onnx.values import Tensor
from common.onnx.walk import Given, Step
from common.onnx.writer import Writer
from common.typing import PyTree


class ClassifierWriter(Writer):
    """The graph, the network's variables, and its tensors so far.

    Attributes:
      classifier_graph: to which operations and layers add nodes.
      variables: {'params/conv1/kernel': array}.
    """

    def __init__(self, variables: PyTree) -> None:
        """Starts without tensors."""
        self.classifier_graph = ClassifierGraph()
        super().__init__(self.classifier_graph)
        self.variables = {
            name: np.asarray(leaf)
            for name, leaf in flatten_dict(variables, sep="/").items()
        }
        self._floats: dict[str, str] = {}

    def finished(self, value: Any, step: Step) -> Tensor:
        """Adds the nodes of a layer or sum that waited for what follows it.

        Raises:
          UserError: it is a convolution of integers that the step does not quantize.
        """
        if not isinstance(value, Affine):
            return super().finished(value, step)
        self._refuse_float_output(value, step)
        return add_affine(self.classifier_graph, self.variables, value)

    def floats(self, given: Given, step: Step) -> Tensor:
        """Returns a step's input as floats of the graph."""
        tensor = self.tensor(given, step)
        if tensor.codes is None:
            return tensor
        if tensor.name not in self._floats:
            self._floats[tensor.name] = dequantized(self.graph, tensor)
        return tensor._replace(name=self._floats[tensor.name], codes=None)

    def _refuse_float_output(self, value: Affine, step: Step) -> None:
        """Raises UserError if a convolution of integers would give floats."""
        layer, after = value.layer, step.layer
        quantizes = isinstance(after, ActivationLayer) and after.grid is not None
        is_conv = isinstance(layer, ConvLayer)
        if is_conv and is_integer(self.variables, layer.name) and not quantizes:
            taker = step.kind if after is None else after.name
            raise UserError(
                f"{layer.name}: its output reaches {taker} without being quantized, so "
                "it cannot be computed with integers. Put "
                "layers.activation('identity', name='quant_...') between them "
                "(acq/models/README.md) and quantize the network again."
            )
