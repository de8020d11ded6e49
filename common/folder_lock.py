"""Locks a folder so that only one command at a time writes to it."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from common.errors import UserError

LOCK = ".lock"
"""Name of the file that a command locks while it works in a folder."""

_OURS = re.compile(rb"(process \d+ on [^\n]*\n)?")
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextlib.contextmanager
def hold_folder(folder: Path, what: str) -> Iterator[None]:
    """Keeps other commands out of a folder while the context lasts.

    The folder is made if it does not exist. If it was made here and is still empty at
    the end, it is removed. The lock (`flock`) ends with the process in any case. A file
    system without locks only causes a warning.

    Args:
      folder: to lock.
      what: the flag or key that names it, for messages.

    Raises:
      UserError: another command holds the folder, it cannot be written to, or another
        software wrote its `.lock`.
    """
    try:
        made = _make(folder)
        descriptor = _lock(folder / LOCK, what)
    except OSError as error:
        raise UserError(
            f"{what}: {folder} cannot be written to ({error.strerror or error}). Give "
            "a writable folder."
        ) from error
    try:
        yield
    finally:
        # While the lock is held, so that this command removes only its own file.
        if _is(folder / LOCK, descriptor):
            (folder / LOCK).unlink()
        os.close(descriptor)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _make(folder: Path) -> bool:
    if folder.is_dir():
        return False
    folder.mkdir(parents=True)
    return True


def _lock(path: Path, what: str) -> int:
    """Returns the descriptor of the locked file."""
    while True:
        descriptor = _open(path, what)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise UserError(
                f"{what}: another command is at work in {path.parent} "
                f"({holder or 'it has just begun'}). Wait until it ends, or give "
                "another folder."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            logging.warning(
                "%s: its file system has no locks; make sure that no other command "
                "writes there",
                path.parent,
            )
        if _is(path, descriptor):
            break
        os.close(descriptor)  # its holder removed it in between
    if not _OURS.fullmatch(os.pread(descriptor, 1000, 0)):
        os.close(descriptor)
        raise _foreign(path, what)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _open(path: Path, what: str) -> int:
    """Returns the descriptor of the lock file; follows no link."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise _foreign(path, what)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _foreign(path, what)
    return descriptor


def _foreign(path: Path, what: str) -> UserError:
    return UserError(
        f"{what}: {path} is not the lock of a command of this software. Move or "
        "remove it, or give another folder."
    )


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
