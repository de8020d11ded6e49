"""The only module that uses the package onnx: a graph as a model in a file."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from common.errors import UserError
from common.files import replacing
from common.onnx.graph import Graph
from common.version import VERSION

OPSET = 17
"""Version of ONNX's operators; onnxruntime from 1.12 on has them."""

INSTALL = "pip install -r requirements-export.txt"
"""The command that installs onnx and onnxruntime."""

_IR_VERSION = 8

Shape = Sequence[int | str]
"""Sides, and names of those that are free."""


def has_onnx() -> bool:
    """Returns whether the package onnx is installed."""
    return importlib.util.find_spec("onnx") is not None


def require_onnx() -> None:
    """Raises UserError, with the command that installs it, if onnx is missing."""
    if not has_onnx():
        raise UserError(
            f"ONNX files need the package onnx, which is missing: {INSTALL}"
        )


def onnx_model(
    graph: Graph,
    input_shape: Shape,
    output_shape: Shape,
    *,
    name: str,
    producer: str,
    description: str,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Returns a graph as an `onnx.ModelProto`, checked.

    Args:
      graph: finished.
      input_shape: of float32.
      output_shape: of float32.
      name: of the graph.
      producer: the package that made it.
      description: for people.
      metadata: for programs.

    Raises:
      UserError: onnx is not installed.
    """
    onnx = _import_onnx()
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    of_graph = helper.make_graph(
        [
            helper.make_node(
                node.kind,
                node.inputs,
                [node.output],
                name=node.output,
                **node.attributes,
            )
            for node in graph.nodes
        ],
        name,
        [helper.make_tensor_value_info(graph.input, floats, input_shape)],
        [helper.make_tensor_value_info(graph.output, floats, output_shape)],
        [
            onnx.numpy_helper.from_array(values, name)
            for name, values in graph.constants.items()
        ],
    )
    model = helper.make_model(
        of_graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name=producer,
        producer_version=VERSION,
        doc_string=description,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def write_model(model: Any, path: Path) -> None:
    """Writes an `onnx.ModelProto`, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _import_onnx() -> Any:
    require_onnx()
    return importlib.import_module("onnx")
