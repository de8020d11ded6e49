"""The tensors of a network while its ONNX graph grows, and the forms they are asked in.

Images are stored channels first. Each tensor knows the order of its axes, so a
transposition needs no node until an operation asks for another order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.onnx.graph import Graph
from common.onnx.sizes import DependsOnSizeError, Differing, Side, Sizes, Varying
from common.onnx.values import Summed, Tensor
from common.onnx.walk import Given, Step

# Where the graph's input, n c h w, has height and width.
_AXES = {"p": 2, "q": 3}


class Writer:
    """The graph and the network's tensors so far.

    Attributes:
      graph: to which operations add nodes.
      values: the tensors by their number in the trace.
    """

    def __init__(self, graph: Graph, sizes: Sizes | None = None) -> None:
        """Starts without tensors.

        Args:
          graph: empty.
          sizes: those of the traces, if they are several.
        """
        self.graph = graph
        self.values: dict[int, Any] = {}
        self._sizes = sizes
        self._sides: dict[Side, str] = {}
        self._known_units: dict[str, str] = {}

    def value(self, given: Given) -> Any:
        """Returns a step's input as it is.

        Raises:
          DependsOnSizeError: it is a constant that follows the size of the images.
        """
        if isinstance(given, Differing):
            raise DependsOnSizeError("a constant depends on the size of the images")
        return given if isinstance(given, np.ndarray) else self.values[given]

    def tensor(self, given: Given, step: Step) -> Tensor:
        """Returns a step's input as a tensor of the graph."""
        value = self.value(given)
        if isinstance(value, Tensor):
            return value
        if isinstance(value, np.ndarray):
            name = self.graph.constant(value.astype(np.float32), "constant")
            return Tensor(name, tuple(range(value.ndim)), value.shape)
        tensor = self.finished(value, step)
        assert isinstance(given, int)  # a constant is an array
        self.values[given] = tensor
        return tensor

    def finished(self, value: Any, step: Step) -> Tensor:
        """Adds the nodes of a value that waited for what follows it."""
        assert isinstance(value, Summed), value
        return self.reduced(value, "ReduceSum")

    def floats(self, given: Given, step: Step) -> Tensor:
        """Returns a step's input as floats of the graph."""
        return self.tensor(given, step)

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
        x, keeps = value.x, int(value.keeps_axes)
        places = sorted(x.place(axis) for axis in value.axes)
        name = f"{x.name}/{kind}"
        if kind == "ReduceSum":
            axes = self.graph.constant(np.array(places, np.int64), "axes")
            name = self.graph.node(kind, [x.name, axes], name, keepdims=keeps)
        else:
            name = self.graph.node(kind, [x.name], name, axes=places, keepdims=keeps)
        if keeps:
            return Tensor(name, x.order, value.shape)
        left = [axis for axis in x.order if axis not in value.axes]
        order = tuple(sorted(left).index(axis) for axis in left)
        return Tensor(name, order, value.shape)

    def vector(self, numbers: Sequence[Side], name: str) -> str:
        """Returns the name of a vector of int64, such as a shape.

        Raises:
          DependsOnSizeError: a number follows the size of the images in another form
            than sides do.
        """
        if not any(isinstance(number, Varying) for number in numbers):
            return self.graph.constant(np.array(numbers, np.int64), name)
        parts = [self._side(number) for number in numbers]
        return self.graph.node("Concat", parts, name, axis=0)

    def _side(self, number: Side) -> str:
        """Returns the name of a vector of one number."""
        if number not in self._sides:
            self._sides[number] = self._computed(number)
        return self._sides[number]

    def _computed(self, number: Side) -> str:
        graph = self.graph
        if not isinstance(number, Varying):
            return graph.constant(np.array([number], np.int64), "side")
        assert self._sizes is not None, number
        a, *factors = self._sizes.factors(number)
        terms = [self._side(a)] if a else []
        for factor, units in zip(factors, ("p", "q", "pq"), strict=True):
            if factor == 1:
                terms.append(self._units(units))
            elif factor:
                parts = [self._units(units), self._side(factor)]
                terms.append(graph.node("Mul", parts, "sides"))
        total = terms[0]
        for term in terms[1:]:
            total = graph.node("Add", [total, term], "sides")
        return total

    def _units(self, which: str) -> str:
        """Returns the name of "p", "q" or "pq", see `sizes`."""
        if which not in self._known_units:
            graph, sizes = self.graph, self._sizes
            assert sizes is not None
            if which == "pq":
                name = graph.node("Mul", [*map(self._units, which)], "units")
            else:
                shape = graph.node("Shape", [graph.input], "shape")
                axis = self._side(_AXES[which])
                side = graph.node("Gather", [shape, axis], "pixels", axis=0)
                name = graph.node("Div", [side, self._side(sizes.unit)], "units")
            self._known_units[which] = name
        return self._known_units[which]
