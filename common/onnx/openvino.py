"""OpenVINO, which computes ONNX files on processors of many kinds.

Its package tells its maker of every import, over the network and without asking. Here
it does not: the package that sends is not found, as where it is not installed.
"""

import importlib
import importlib.util
import sys
from typing import Any

from common.errors import UserError

PACKAGE = "openvino"


def import_openvino() -> Any:
    """Returns the package.

    Raises:
      UserError: it is missing.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise UserError(f"the package {PACKAGE} is missing: pip install {PACKAGE}")
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    return importlib.import_module(PACKAGE)


def compile_onnx(content: bytes) -> Any:
    """Returns what computes the content of an ONNX file, its floats in 32 bits.

    Raises:
      UserError: the package is missing.
      RuntimeError: OpenVINO cannot compute the file.
    """
    core = import_openvino().Core()
    # Processors with AMX would otherwise compute floats with 16 bits.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(content), "CPU", settings)
