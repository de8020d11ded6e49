"""The tasks of IPv2 by name, as `--task` takes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.config import ConfigDict
from common.devices import is_first_process
from ipv2.tasks.calibrate import calibrate_scans
from ipv2.tasks.compare import compare
from ipv2.tasks.denoise import denoise
from ipv2.tasks.evaluate import evaluate_run
from ipv2.tasks.export import export_weights
from ipv2.tasks.purify import purify_folder
from ipv2.tasks.simulate import simulate
from ipv2.tasks.tables import format_results
from ipv2.tasks.train import train

Task = Callable[[ConfigDict, Path], object]


def _printed(task: Callable[[ConfigDict, Path], dict[str, Any]]) -> Task:
    """Returns a task that prints a table of its results at the end."""

    def run(config: ConfigDict, workdir: Path) -> None:
        results = task(config, workdir)
        if is_first_process():
            print(format_results(results, title=workdir.name))

    return run


TASKS: dict[str, Task] = {
    "train": _printed(train),
    "compare": compare,
    "evaluate": _printed(evaluate_run),
    "export": export_weights,
    "denoise": denoise,
    "purify": purify_folder,
    "simulate": simulate,
    "calibrate": calibrate_scans,
}
