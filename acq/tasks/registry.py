"""The tasks of ACQ by name, as `--task` takes them."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from acq.tasks.denoiser_files import export_denoiser
from acq.tasks.evaluate import evaluate_run
from acq.tasks.export import export_run
from acq.tasks.quantize import quantize_run
from acq.tasks.quantize_denoiser import quantize_denoiser
from acq.teacher.own_network import with_its_line
from common.config import ConfigDict
from common.errors import UserError

Task: TypeAlias = Callable[[ConfigDict, Path], Any]


def _naming_lines(task: Task) -> Task:
    """Returns the task; errors of the user's network end it with file and line."""

    @functools.wraps(task)
    def run(config: ConfigDict, workdir: Path) -> Any:
        if "open" in config.teacher:
            raise UserError(
                "--task: this recipe's network is no classifier; accepted: "
                "quantize_denoiser, export, or no --task"
            )
        with with_its_line(str(config.teacher.name)):
            return task(config, workdir)

    return run


def _export(config: ConfigDict, workdir: Path) -> Any:
    """Task export, of the kind of network that the recipe quantizes."""
    if "open" in config.teacher:
        return export_denoiser(config, workdir)
    return _naming_lines(export_run)(config, workdir)


TASKS: Mapping[str, Task] = {
    "quantize": _naming_lines(quantize_run),
    "evaluate": _naming_lines(evaluate_run),
    "export": _export,
    "quantize_denoiser": quantize_denoiser,
}
