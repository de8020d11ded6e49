"""Keeps a workdir to one command at a time and free of somebody else's files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from common.devices import is_first_process
from common.folder_lock import hold_folder

RECORDS = ("config.json", "data.json", "teacher.json", "bits.json")
"""Files that say how a run began. The run computed none of them."""

# Where the runs of all tasks write what they compute.
_RESULTS = (
    *("results.json", "report.html", "comparison.txt", "baselines.json"),
    *("metrics.jsonl", "data.json", "teacher.json", "bits.json"),
)
_RESULT_FOLDERS = ("checkpoints", "export", "generator", "tensorboard")


@contextlib.contextmanager
def hold_workdir(workdir: Path, command: str) -> Iterator[None]:
    """Keeps other commands out of a run's folder while the context lasts.

    Of several processes the first one holds the folder.

    Args:
      workdir: the run's folder.
      command: such as 'task train', for the message that another command gets.

    Raises:
      UserError: another command works in the folder, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if is_first_process():
            stack.enter_context(hold_folder(workdir, command))
        yield


def anything_computed(workdir: Path) -> bool:
    """Returns whether a run's folder holds more than `RECORDS` and hidden files."""
    return any(
        path.name not in RECORDS
        and not any(part.startswith(".") for part in path.relative_to(workdir).parts)
        and not path.is_dir()
        for path in workdir.rglob("*")
    )


def first_in_the_way(workdir: Path) -> Path | None:
    """Returns the first file that lies where results go; None if there is none.

    Hidden files and empty folders are in nobody's way.
    """
    for path in (workdir / name for name in _RESULTS):
        if path.exists() or path.is_symlink():
            return path
    for folder in (workdir / name for name in _RESULT_FOLDERS):
        if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
            return folder
        for path in sorted(folder.rglob("*")):
            if not path.is_dir() and not path.name.startswith("."):
                return path
    return None
