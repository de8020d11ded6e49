"""All files of a quantized network for other software, and their description.

model.onnx                  integers as pairs of Q and DQ
model_float.onnx            the float network, to compare with
model.packed.safetensors    weights of few bits in few bits, for `acq.load_packed`
model.stablehlo             the same network for any program with jax
"""

import hashlib
from pathlib import Path
from typing import Any

from acq.classifier import Classifier, Record
from acq.deploy.graph import INPUT, OUTPUT
from acq.deploy.integer_ready import IntegerReady
from acq.deploy.network_graph import float_graph, integer_graph
from acq.deploy.onnx_file import write_onnx
from acq.deploy.packed import write_packed
from acq.deploy.stablehlo import write_stablehlo
from common.version import COMMIT, VERSION

INTEGER, FLOAT = "model.onnx", "model_float.onnx"
PACKED, STABLEHLO = "model.packed.safetensors", "model.stablehlo"


def write_files(
    ready: IntegerReady, teacher: Classifier, folder: Path
) -> dict[str, Any]:
    """Writes all files, and returns what a manifest says of them.

    Args:
      ready: the quantized network as integer kernels compute it.
      teacher: the float network.
      folder: of the files; those of the same names are replaced.

    Raises:
      UserError: onnx is not installed, or a network has an operation that cannot be
        exported.
    """
    small = ready.network
    # Both before the first file: what cannot be exported leaves none.
    integers, floats = integer_graph(small), float_graph(teacher)
    write_onnx(integers, small.record, folder / INTEGER)
    write_onnx(floats, teacher.record, folder / FLOAT)
    write_packed(small, folder / PACKED)
    write_stablehlo(small, folder / STABLEHLO)
    return {
        "software_version": VERSION,
        "commit": COMMIT,
        "files": {
            name: _described(folder / name)
            for name in (INTEGER, FLOAT, PACKED, STABLEHLO)
        },
        "input": _input(small.record),
        "output": {"name": OUTPUT, "classes": small.record.classes},
        "added_quantizers": list(ready.added),
        "weights_rounded_again": list(ready.rounded_again),
        "may_saturate_without_vnni": integers.saturating,
    }


def sizes_in_words(description: dict[str, Any]) -> str:
    """Returns "model.onnx 302,211 bytes, ..." of what `write_files` returned."""
    return ", ".join(
        f"{name} {found['bytes']:,} bytes"
        for name, found in description["files"].items()
    )


def _described(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _input(record: Record) -> dict[str, Any]:
    size, channels = record.image_size, record.channels
    return {
        "name": INPUT,
        "type": "float32",
        # Mean and std are part of the files.
        "range": [0, 1],
        "onnx_shape": ["batch", channels, size, size],
        "stablehlo_shape": ["batch", size, size, channels],
    }
