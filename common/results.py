"""A run's `results.json`. It is written last: a workdir with it is a complete run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from common.errors import UserError
from common.files import write_atomically

_NAME = "results.json"


def finished_results(
    workdir: Path, task: str, is_of_task: Callable[[Mapping[str, Any]], bool]
) -> dict[str, Any] | None:
    """Returns the results of a complete run, and logs this; None if it is incomplete.

    Args:
      workdir: of the run.
      task: name of the current task, for the message.
      is_of_task: whether results are of that task.

    Raises:
      UserError: the file is damaged, or not of this task.
    """
    path = workdir / _NAME
    if not (path.exists() or path.is_symlink()):
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged, or not of this software ({error}). Give another "
            "--workdir."
        ) from error
    if not isinstance(found, dict) or not is_of_task(found):
        raise UserError(
            f"{path}: not the results of task {task}. {workdir} holds a run of another "
            "task, or files that are not of a run. Give another --workdir."
        )
    logging.info("%s is complete: %s", workdir, path)
    return found


def write_results(workdir: Path, results: Mapping[str, Any]) -> None:
    """Writes `results.json`; call it after the run has written all its other files."""
    write_atomically(workdir / _NAME, json.dumps(results, indent=2) + "\n")
