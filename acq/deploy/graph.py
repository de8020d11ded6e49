"""A growing ONNX graph: nodes, constants, and names that occur once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common.version import VERSION

OPSET = 17
"""ONNX operators; onnxruntime from 1.12 on has them."""

IR_VERSION = 8
INPUT, OUTPUT = "images", "logits"


class Graph:
    """The nodes and constants of a graph so far."""

    def __init__(self) -> None:
        """Starts empty."""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._tensors: list[onnx.TensorProto] = []
        self._names: dict[str, int] = {}

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes) -> str:
        """Adds a node; returns the name of its output.

        Args:
          kind: ONNX's name of the operator.
          inputs: names; '' leaves an optional input out.
          name: wished for node and output; it gets a number if it is taken.
          **attributes: of the node.
        """
        name = self._free(name)
        self._nodes.append(
            helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        )
        return name

    def constant(self, values: np.ndarray, name: str) -> str:
        """Returns the name of a constant; equal ones of the same name are one."""
        values = np.ascontiguousarray(values)
        key = (name, values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = self._free(name)
            tensor = numpy_helper.from_array(values, self._constants[key])
            self._tensors.append(tensor)
        return self._constants[key]

    def model(
        self, logits: str, image_shape: tuple[int, int, int], classes: int, about: str
    ) -> onnx.ModelProto:
        """Returns the model, checked.

        Args:
          logits: name of the result.
          image_shape: channels, height, width.
          classes: number of logits.
          about: its description.
        """
        self._nodes.append(helper.make_node("Identity", [logits], [OUTPUT], name=OUTPUT))
        graph = helper.make_graph(
            self._nodes,
            "classifier",
            [_floats(INPUT, ("batch", *image_shape))],
            [_floats(OUTPUT, ("batch", classes))],
            self._tensors,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="acq",
            producer_version=VERSION,
            doc_string=about,
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _free(self, name: str) -> str:
        # The names of the graph's own input and output are never given away.
        count = self._names.get(name, int(name in (INPUT, OUTPUT)))
        self._names[name] = count + 1
        return f"{name}.{count}" if count else name


def _floats(name: str, shape: tuple[str | int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
