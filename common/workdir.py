"""Locks a workdir: only one command at a time works in it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from common.devices import is_first_process
from common.folder_lock import hold_folder


@contextlib.contextmanager
def hold_workdir(workdir: Path, what: str) -> Iterator[None]:
    """Keeps other commands out of a workdir; only the first process locks it.

    Args:
      workdir: of the run.
      what: the command, for the messages of other commands: 'task train'.

    Raises:
      UserError: another command is at work in it, or it cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        if is_first_process():
            stack.enter_context(hold_folder(workdir, what))
        yield
