"""The tasks of IPv2, by the name that `--task` takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.config import ConfigDict
from common.devices import is_first_process
from ipv2.calibrate_scans import calibrate_scans
from ipv2.compare import compare
from ipv2.evaluate_split import evaluate_run
from ipv2.purify_folder import purify_folder
from ipv2.result_table import format_results
from ipv2.simulate import simulate
from ipv2.train import train

Task = Callable[[ConfigDict, Path], object]


def _printed(task: Callable[[ConfigDict, Path], dict[str, Any]]) -> Task:
    """Returns the task, followed by a table of its results."""

    def run(config: ConfigDict, workdir: Path) -> None:
        results = task(config, workdir)
        if is_first_process():
            print(format_results(results, title=workdir.name))

    return run


TASKS: dict[str, Task] = {
    "train": _printed(train),
    "compare": compare,
    "evaluate": _printed(evaluate_run),
    "purify": purify_folder,
    "simulate": simulate,
    "calibrate": calibrate_scans,
}
