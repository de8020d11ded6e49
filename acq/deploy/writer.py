"""The tensors of a network while its ONNX graph grows, and the forms they are asked in.

Images are stored channels first. Each tensor knows the order of its axes, so a
transposition needs no node until an operation asks for another order.
"""

import numpy as np
from flax.traverse_util import flatten_dict

from acq.deploy.graph import Graph
from acq.deploy.kernels import add_affine, dequantized, is_integer
from acq.deploy.trace import ActivationLayer, ConvLayer, Step
from acq.deploy.values import Affine, Summed, Tensor, Value
from common.errors import UserError
from common.typing import PyTree


class Writer:
    """The graph, the network's variables, and its tensors so far.

    Attributes:
      graph: to which operations add nodes.
      variables: {'params/conv1/kernel': array}.
      values: the tensors by their number in the trace.
    """

    def __init__(self, variables: PyTree) -> None:
        """Starts without tensors."""
        self.graph = Graph()
        self.variables = {
            name: np.asarray(leaf)
            for name, leaf in flatten_dict(variables, sep="/").items()
        }
        self.values: dict[int, Value] = {}
        self._floats: dict[str, str] = {}

    def value(self, given: int | np.ndarray) -> Value:
        """Returns a step's input as it is."""
        return given if isinstance(given, np.ndarray) else self.values[given]

    def tensor(self, given: int | np.ndarray, step: Step) -> Tensor:
        """Returns a step's input as a tensor of the graph, of codes or floats.

        Raises:
          UserError: it is a convolution of integers that the step does not quantize.
        """
        match value := self.value(given):
            case Tensor():
                return value
            case np.ndarray():
                name = self.graph.constant(value.astype(np.float32), "constant")
                return Tensor(name, tuple(range(value.ndim)), value.shape)
            case Affine():
                self._refuse_float_output(value, step)
                tensor = add_affine(self.graph, self.variables, value)
            case Summed():
                tensor = self.reduced(value, "ReduceSum")
        assert isinstance(given, int)  # a constant is an array
        self.values[given] = tensor
        return tensor

    def floats(self, given: int | np.ndarray, step: Step) -> Tensor:
        """Returns a step's input as floats of the graph."""
        tensor = self.tensor(given, step)
        if tensor.codes is None:
            return tensor
        if tensor.name not in self._floats:
            self._floats[tensor.name] = dequantized(self.graph, tensor)
        return tensor._replace(name=self._floats[tensor.name], codes=None)

    def ordered(self, tensor: Tensor, order: tuple[int, ...]) -> Tensor:
        """Returns a tensor with its axes in another order."""
        if tensor.order == order:
            return tensor
        perm = [tensor.place(axis) for axis in order]
        name = self.graph.node(
            "Transpose", [tensor.name], f"{tensor.name}/transposed", perm=perm
        )
        return tensor._replace(name=name, order=order)

    def reduced(self, value: Summed, kind: str) -> Tensor:
        """Returns a sum or mean."""
        x = value.x
        places = sorted(x.place(axis) for axis in value.axes)
        name = f"{x.name}/{kind}"
        if kind == "ReduceSum":
            axes = self.graph.constant(np.array(places, np.int64), "axes")
            name = self.graph.node(kind, [x.name, axes], name, keepdims=0)
        else:
            name = self.graph.node(kind, [x.name], name, axes=places, keepdims=0)
        left = [axis for axis in x.order if axis not in value.axes]
        order = tuple(sorted(left).index(axis) for axis in left)
        return Tensor(name, order, value.shape)

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
