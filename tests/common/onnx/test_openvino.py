"""OpenVINO as this software imports it."""

import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.mark.skipif(not find_spec("openvino"), reason="no openvino")
def test_an_import_is_not_reported():
    code = """
import sys
from common.onnx.openvino import import_openvino
import_openvino()
assert "openvino.tools.ovc.telemetry_stub" in sys.modules
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
assert "multiprocessing" not in sys.modules  # it reports from a process of its own
"""
    subprocess.run([sys.executable, "-c", code], check=True)
