"""The only module that uses the package onnx: a graph as a model in a file."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from absl import logging

from acq.classifier import Record
from acq.deploy.graph import INPUT, OUTPUT, Graph
from common.errors import UserError
from common.files import replacing
from common.version import VERSION

OPSET = 17
"""Version of ONNX's operators; onnxruntime from 1.12 on has them."""

INSTALL = "pip install -r requirements-export.txt"
"""The command that installs onnx and onnxruntime."""

_IR_VERSION = 8


def has_onnx() -> bool:
    """Returns whether the package onnx is installed."""
    return importlib.util.find_spec("onnx") is not None


def write_onnx(graph: Graph, record: Record, path: Path) -> None:
    """Writes a graph as an ONNX file, complete or not at all.

    Args:
      graph: of a classifier, from `images` to `logits`.
      record: of the classifier.
      path: of the file.

    Raises:
      UserError: onnx is not installed.
    """
    model = onnx_model(graph, record)
    if found := graph.saturating:
        logging.warning(
            "%s: x86 processors without VNNI add two products in 16 bits, so they may "
            "compute %d of %d layers wrongly (%s), with codes above 64. Run the file "
            "on processors with avx512_vnni or avx_vnni, or quantize weights to at "
            "most 6 bits",
            path.name,
            len(found),
            len(graph.kernels),
            ", ".join(found[:3]) + ", ..." * (len(found) > 3),
        )
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def onnx_model(graph: Graph, record: Record) -> Any:
    """Returns a graph as an `onnx.ModelProto`, checked.

    Raises:
      UserError: onnx is not installed.
    """
    onnx = _import_onnx()
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    size, channels = record.image_size, record.channels
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
        "classifier",
        [helper.make_tensor_value_info(INPUT, floats, ("batch", channels, size, size))],
        [helper.make_tensor_value_info(OUTPUT, floats, ("batch", record.classes))],
        [
            onnx.numpy_helper.from_array(values, name)
            for name, values in graph.constants.items()
        ],
    )
    model = helper.make_model(
        of_graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="acq",
        producer_version=VERSION,
        doc_string=f"{record.name}: images in [0, 1], channels first",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def require_onnx() -> None:
    """Raises UserError, with the command that installs it, if onnx is missing."""
    if not has_onnx():
        raise UserError(
            f"ONNX files need the package onnx, which is missing: {INSTALL}"
        )


def _import_onnx() -> Any:
    require_onnx()
    return importlib.import_module("onnx")
