"""What computes a denoiser's ONNX file: onnxruntime, or OpenVINO.

Both take a file from memory, so that it cannot name other files.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from common.errors import UserError
from common.onnx.openvino import PACKAGE as OPENVINO
from common.onnx.openvino import compile_onnx, import_openvino
from common.onnx.package import INSTALL

ONNXRUNTIME = "onnxruntime"
RUNTIMES = (ONNXRUNTIME, OPENVINO)


class Runtime(NamedTuple):
    """A network, ready to compute.

    Attributes:
      name: of the package.
      version: of the package.
      run: takes HU (n, slices, h, w) and returns HU (n, 1, h, w).
    """

    name: str
    version: str
    run: Callable[[Float[np.ndarray, "n slices h w"]], Float[np.ndarray, "n 1 h w"]]


def open_session(path: Path, content: bytes) -> Any:
    """Returns onnxruntime's session of a file's content.

    Raises:
      UserError: onnxruntime is missing, or cannot read it.
    """
    if importlib.util.find_spec(ONNXRUNTIME) is None:
        raise UserError(
            "config.denoise.model names an ONNX file, which needs the package "
            f"onnxruntime, which is missing: {INSTALL}"
        )
    onnxruntime = importlib.import_module(ONNXRUNTIME)
    states = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Left alone, onnxruntime puts threads on cores that this process may not use.
    options.intra_op_num_threads = _allowed_cores()
    try:
        return onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
    except (
        states.Fail,
        states.InvalidArgument,
        states.InvalidGraph,
        states.InvalidProtobuf,
        states.NoModel,
        states.NotImplemented,
        states.RuntimeException,
    ) as error:
        raise UserError(
            f"{path}: onnxruntime cannot read it: {error}. It is damaged, or no ONNX "
            "file; copy it again, or write one with --task export"
        ) from error


def onnxruntime_of(session: Any) -> Runtime:
    """Returns onnxruntime with its session of a file."""
    (image,) = session.get_inputs()
    return Runtime(
        name=ONNXRUNTIME,
        version=importlib.import_module(ONNXRUNTIME).__version__,
        run=lambda hu: session.run(None, {image.name: hu})[0],
    )


def openvino_of(path: Path, content: bytes) -> Runtime:
    """Returns OpenVINO with a file's content, floats in 32 bits.

    Raises:
      UserError: OpenVINO is missing, or cannot compute the file.
    """
    try:
        request = compile_onnx(content).create_infer_request()
    except RuntimeError as error:
        raise UserError(
            f"{path}: OpenVINO cannot compute it: {error}. Compute it with "
            f"config.denoise.runtime={ONNXRUNTIME}"
        ) from error
    return Runtime(
        name=OPENVINO,
        version=import_openvino().__version__.split("-")[0],  # without the build
        run=lambda hu: np.array(request.infer({0: hu})[0]),
    )


def _allowed_cores() -> int:
    """Returns how many cores this process is held to; 0 if it may use all."""
    if not hasattr(os, "sched_getaffinity"):  # only on Linux
        return 0
    allowed = len(os.sched_getaffinity(0))
    return 0 if allowed == os.cpu_count() else allowed
