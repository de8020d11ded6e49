"""Moves the files of a result to their places all together, or not at all.

A job writes its result to a folder in OUTPUT/.making. Once the result is whole, a
journal of renames is written there. Then files in the way are moved aside, and the new
files take their names. An error in between undoes all moves at once. After SIGKILL, a
power cut or an error while undoing, the journal is still there, and the next command in
the folder undoes the moves. Files that were moved aside are never removed before then.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError
from common.files import write_atomically
from ipv2.jobs.records import is_below

FOLDER = ".making"
"""In the output folder, while a command works there."""

_JOURNAL = "moves.json"
_ENTRY = re.compile("[0-9a-f]{16}")
# The journal has a temporary name while it is written; a power cut may leave that.
_PARTS = re.compile(rf"new|old|record\.json|\.?{re.escape(_JOURNAL)}(\.\d+\.json)?")


class Move(NamedTuple):
    """A file or folder moves to its place.

    Attributes:
      new: the file or folder; None only moves aside the one at the place.
      place: the path that it moves to.
    """

    new: Path | None
    place: Path


@contextlib.contextmanager
def staging(output: Path, name: str) -> Iterator[Path]:
    """Yields a folder to write a result to, and removes it at the end.

    It stays if moves are half done.

    Args:
      output: the folder of all results, which this command holds.
      name: the name of the result, which no other result has.
    """
    entry = output / FOLDER / hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    entry.mkdir(parents=True)
    try:
        yield entry
    finally:
        if not (entry / _JOURNAL).exists():
            # The next command removes what cannot be removed now.
            shutil.rmtree(entry, ignore_errors=True)
        with contextlib.suppress(OSError):  # it is not empty
            entry.parent.rmdir()


def install(output: Path, entry: Path, moves: Sequence[Move]) -> None:
    """Moves all files to their places, or none.

    Args:
      output: the folder of all results, on one file system.
      entry: the folder from `staging`, with the new files.
      moves: the moves to do.

    Raises:
      OSError: a file could not be moved. All files are where they were before. If one
        could not be moved back, the next command's `recover` tries again.
    """
    old = entry / "old"
    old.mkdir()
    listed = [
        [new and str(new.relative_to(entry)), str(place.relative_to(output))]
        for new, place in moves
    ]
    write_atomically(entry / _JOURNAL, json.dumps(listed))
    try:
        for index, (new, place) in enumerate(moves):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists() or place.is_symlink():
                os.replace(place, old / str(index))
            if new is not None:
                os.replace(new, place)
    except BaseException:
        _undo(output, entry)
        raise
    (entry / _JOURNAL).unlink()


def recover(output: Path) -> None:
    """Undoes the moves of a killed command, and removes the files that it left.

    Raises:
      OSError: a file that was moved aside could not be moved back.
      UserError: no command wrote one of the files; none is touched.
    """
    folder = output / FOLDER
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise _foreign(folder)
    entries = list(folder.iterdir()) if folder.exists() else []
    for entry in entries:
        _require_own(entry)
    for entry in entries:
        if (entry / _JOURNAL).exists():
            _undo(output, entry)
    if folder.exists():
        shutil.rmtree(folder)


def _require_own(entry: Path) -> None:
    """Raises UserError unless a killed command can have left the entry."""
    if not _ENTRY.fullmatch(entry.name) or entry.is_symlink() or not entry.is_dir():
        raise _foreign(entry)
    for path in entry.iterdir():
        if not _PARTS.fullmatch(path.name) or path.is_symlink():
            raise _foreign(path)
    journal = entry / _JOURNAL
    if journal.exists():
        _moves(journal)


def _foreign(path: Path) -> UserError:
    return UserError(
        f"{path}: no command of this software left it there. Move or remove it "
        "yourself, or give another folder."
    )


def _moves(journal: Path) -> list[tuple[str | None, str]]:
    """The moves in a journal: names and places.

    Raises:
      UserError: this software did not write it.
    """
    try:
        found = json.loads(journal.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise _foreign(journal) from error
    if not isinstance(found, list) or not all(_is_move(one) for one in found):
        raise _foreign(journal)
    return [(name, place) for name, place in found]


def _is_move(found: Any) -> bool:
    return (
        isinstance(found, list)
        and len(found) == 2
        and isinstance(found[1], str)
        and all(isinstance(n, str) and is_below(n) for n in found if n is not None)
    )


def _undo(output: Path, entry: Path) -> None:
    moves = _moves(entry / _JOURNAL)
    for index, (name, place_name) in reversed(list(enumerate(moves))):
        place, kept = output / place_name, entry / "old" / str(index)
        if name is not None and not (entry / name).exists() and place.exists():
            os.replace(place, entry / name)
        if kept.exists() or kept.is_symlink():
            os.replace(kept, place)
    (entry / _JOURNAL).unlink()
