"""The tasks of IPv2 by name, as `--task` takes them.

The module of a task is imported when the task runs, since importing all takes seconds.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

from common.config import ConfigDict

Task = Callable[[ConfigDict, Path], object]


def _task(module: str, name: str) -> Task:
    """Returns the function of a module below `ipv2.tasks`, not imported yet."""

    def run(config: ConfigDict, workdir: Path) -> object:
        function = getattr(importlib.import_module(f"ipv2.tasks.{module}"), name)
        return function(config, workdir)

    return run


def _printed(task: Task) -> Task:
    """Returns a task that prints a table of its results at the end."""

    def run(config: ConfigDict, workdir: Path) -> None:
        results = task(config, workdir)
        tables = importlib.import_module("ipv2.tasks.tables")
        if importlib.import_module("common.devices").is_first_process():
            print(tables.format_results(results, title=workdir.name))

    return run


TASKS: dict[str, Task] = {
    "train": _printed(_task("train", "train")),
    "compare": _task("compare", "compare"),
    "evaluate": _printed(_task("evaluate", "evaluate_run")),
    "export": _task("export", "export"),
    "denoise": _task("denoise", "denoise"),
    "purify": _task("purify", "purify_folder"),
    "simulate": _task("simulate", "simulate"),
    "calibrate": _task("calibrate", "calibrate_scans"),
}
