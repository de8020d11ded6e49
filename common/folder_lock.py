"""A folder that one command at a time works in."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from common.errors import UserError

LOCK = ".lock"


@contextlib.contextmanager
def hold_folder(folder: Path, what: str) -> Iterator[None]:
    """Keeps other commands out of a folder while the context lasts.

    The system gives the lock back when its process ends, however it ends; the file
    `.lock` may stay and means nothing by itself.

    Args:
      folder: made if it is not there.
      what: what messages call it: the flag or key that names it.

    Raises:
      UserError: another command is at work in it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise UserError(
            f"{what}: another command is at work in {folder}. Wait for its end, or "
            "give another folder."
        ) from error
    except OSError as error:
        raise UserError(
            f"{what}: {folder} cannot be written ({error.strerror or error}). Give a "
            "folder that can."
        ) from error
    try:
        yield
    finally:
        lock.release()
