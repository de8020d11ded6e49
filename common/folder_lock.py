"""A folder that one command at a time writes to."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from common.errors import UserError

LOCK = ".lock"
"""The file in a folder that is locked while a command works there."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextlib.contextmanager
def hold_folder(folder: Path, what: str) -> Iterator[None]:
    """Keeps other commands out of a folder while the context lasts.

    The folder is made if it is not there, and removed at the end if it was made here
    and nothing came into it. The lock (`flock`) falls with the process, however that
    ends. A file system without locks is told in a warning, and worked on.

    Args:
      folder: to hold.
      what: the command, for the message that another one gets: 'task denoise'.

    Raises:
      UserError: another command holds the folder, or it cannot be written to.
    """
    try:
        made = _make(folder)
        descriptor = _lock(folder / LOCK, what)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to: {error.strerror or error}. Give another "
            "folder."
        ) from error
    try:
        yield
    finally:
        # While it is held, so that what is removed is the own one.
        (folder / LOCK).unlink(missing_ok=True)
        os.close(descriptor)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _make(folder: Path) -> bool:
    if folder.is_dir():
        return False
    folder.mkdir(parents=True)
    return True


def _lock(path: Path, what: str) -> int:
    """The descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise UserError(
                f"{path.parent}: another command works in this folder "
                f"({holder or 'it has just begun'}). Wait for its end, or give another "
                "folder."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            logging.warning(
                "%s: its file system has no locks; see to it that no other command "
                "writes there",
                path.parent,
            )
        if _is(path, descriptor):
            break
        os.close(descriptor)  # who held it removed it in between
    os.ftruncate(descriptor, 0)
    os.write(
        descriptor,
        f"{what}, process {os.getpid()} on {socket.gethostname()}\n".encode(),
    )
    return descriptor


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
