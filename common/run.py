"""A run in a workdir: the config that decides its results, and how it begins.

A workdir holds one run; its `config.json` is the config that the run began with. The
whole config is the one object that decides the results, but for a few keys, which each
task lists (`free`). So "is this the same run?" is one question and is asked here alone:
are the two configs equal in all other keys?
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.devices import is_first_process
from common.errors import UserError
from common.files import write_atomically
from common.nested import differences
from common.results import finished_results
from common.workdir import anything_computed, first_in_the_way, hold_workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run: what decides its results, and its folder.

    Attributes:
      config: all keys and values, as JSON can hold them.
      workdir: the run's folder.
      free: sections or keys of the config that decide no result. They may differ
        between the start of a run and its resumption.
    """

    config: Mapping[str, Any]
    workdir: Path
    free: tuple[str, ...] = ()

    @contextlib.contextmanager
    def hold(
        self, task: str, is_of_task: Callable[[Mapping[str, Any]], bool]
    ) -> Iterator[dict[str, Any] | None]:
        """Keeps other commands out of the workdir while the context lasts.

        Args:
          task: the task's name, for messages.
          is_of_task: whether the content of a `results.json` is of that task.

        Yields:
          The results of a complete run; None if there is work to do.

        Raises:
          UserError: another command works in the folder, or the folder holds another
            run or files of no run.
        """
        with hold_workdir(self.workdir, f"task {task}"):
            self.refuse_other()
            yield finished_results(self.workdir, task, is_of_task)

    def begin(self) -> None:
        """Writes `config.json`, unless the run has computed something before.

        Of several processes the first one does. Call it once all inputs are open: a
        command that fails earlier does not bind the next one to its config.

        Raises:
          UserError: the folder holds another run, or files of no run.
        """
        if not is_first_process():
            return
        self.refuse_other()
        path = self.workdir / "config.json"
        if not (path.exists() and anything_computed(self.workdir)):
            write_atomically(path, json.dumps(self._as_json(), indent=2) + "\n")

    def refuse_other(self) -> None:
        """Raises if the folder holds results of another config.

        Any config may begin where nothing was computed yet.

        Raises:
          UserError: the folder holds another run, or files of no run.
        """
        path = self.workdir / "config.json"
        # Before the config is read: a process that replaces it has computed nothing.
        computed = anything_computed(self.workdir)
        in_the_way = first_in_the_way(self.workdir)
        if not (path.exists() or path.is_symlink()):
            if in_the_way is not None:
                raise UserError(
                    f"{self.workdir} holds files that are not of a run: {in_the_way} "
                    "lies where results go, without a config.json. Give another "
                    "--workdir."
                )
            return
        lines = [
            f"  config.{key}: the run has {before!r}, this command {now!r}"
            for key, before, now in differences(_read(path), self._as_json())
            if not self._is_free(key)
        ]
        if computed and lines:
            raise UserError(
                f"{self.workdir} holds a run with another config:\n"
                + "\n".join(lines)
                + "\nGive the same values to resume it, or another --workdir."
            )

    def _is_free(self, key: str) -> bool:
        return any(key == free or key.startswith(f"{free}.") for free in self.free)

    def _as_json(self) -> dict[str, Any]:
        """The config as its file gives it back: with lists in place of tuples."""
        return json.loads(json.dumps(self.config))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    # Every config of this software has a seed.
    if not isinstance(found, dict) or "seed" not in found:
        raise UserError(
            f"{path}: not the config of a run of this software. Give another --workdir."
        )
    return found
