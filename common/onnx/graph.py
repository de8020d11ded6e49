"""A graph of operations with ONNX's names and meanings, without ONNX itself."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np


class Node(NamedTuple):
    """An operation with one result.

    Attributes:
      kind: ONNX's name of the operator.
      inputs: names.
      output: name of the result.
      attributes: of the operator.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Graph:
    """Operations and constants, each under a name of its own.

    Attributes:
      input: name of the graph's input.
      output: name of its result.
      nodes: in an order in which each follows those whose results it takes.
      constants: by name.
    """

    def __init__(self, input: str, output: str) -> None:
        """Starts empty, with the names of input and result."""
        self.input, self.output = input, output
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._names: dict[str, int] = {input: 1, output: 1}

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes) -> str:
        """Adds an operation; returns the name of its result.

        Args:
          kind: ONNX's name of the operator.
          inputs: names.
          name: wished for the result; it gets a number if it is taken.
          **attributes: of the operator.
        """
        name = self._free(name)
        self.nodes.append(Node(kind, tuple(inputs), name, attributes))
        return name

    def constant(self, values: np.ndarray | np.generic, name: str) -> str:
        """Returns the name of a constant; equal ones of the same name are one."""
        values = np.array(values, order="C")
        key = (name, values.dtype.str, values.shape, sha256(values.tobytes()).digest())
        if key not in self._known:
            self._known[key] = self._free(name)
            self.constants[self._known[key]] = values
        return self._known[key]

    def finish(self, result: str) -> None:
        """Makes a tensor the graph's result."""
        self.nodes.append(Node("Identity", (result,), self.output, {}))

    def _free(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f"{name}.{count}" if count else name
