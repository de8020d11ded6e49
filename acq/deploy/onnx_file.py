"""The graph of a classifier as an ONNX file."""

from pathlib import Path
from typing import Any

from absl import logging

from acq.classifier import Record
from acq.deploy.graph import ClassifierGraph
from common.onnx import package


def write_onnx(graph: ClassifierGraph, record: Record, path: Path) -> None:
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
    package.write_model(model, path)


def onnx_model(graph: ClassifierGraph, record: Record) -> Any:
    """Returns a graph as an `onnx.ModelProto`, checked.

    Raises:
      UserError: onnx is not installed.
    """
    size, channels = record.image_size, record.channels
    return package.onnx_model(
        graph,
        ("batch", channels, size, size),
        ("batch", record.classes),
        name="classifier",
        producer="acq",
        description=f"{record.name}: images in [0, 1], channels first",
    )
