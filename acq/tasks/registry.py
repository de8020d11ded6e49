"""The tasks of ACQ by name, as `--task` takes them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from acq.tasks.evaluate import evaluate_run
from acq.tasks.export import export_run
from acq.tasks.quantize import quantize_run
from common.config import ConfigDict

TASKS: Mapping[str, Callable[[ConfigDict, Path], Any]] = {
    "quantize": quantize_run,
    "evaluate": evaluate_run,
    "export": export_run,
}
