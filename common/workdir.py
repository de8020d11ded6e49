"""A run's folder: one command at a time, and one config from its first result on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from common.devices import is_first_process
from common.folder_lock import hold_folder


@contextlib.contextmanager
def hold_workdir(workdir: Path, what: str) -> Iterator[None]:
    """Keeps other commands out of a run's folder; of several processes one does.

    Args:
      workdir: the run's folder.
      what: the command, for the message that another one gets: 'task train'.

    Raises:
      UserError: another command is at work in it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if is_first_process():
            stack.enter_context(hold_folder(workdir, what))
        yield
