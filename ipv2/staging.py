"""Results that take their places all together, or not at all.

A result is written to a folder of its own in OUTPUT/.making. When it is whole, a
journal of renames is written there, what is in the way is moved aside, and the new
files take their names. An error in between is undone at once. After SIGKILL or a power
cut the journal is still there, and the next command in the folder undoes what was
begun. So it does where undoing failed in its turn: what was moved aside is never
removed before it is back.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.files import write_atomically

FOLDER = ".making"
"""In the output folder, while a command works there."""

_JOURNAL = "moves.json"


class Move(NamedTuple):
    """A rename: a file or folder to its place.

    Attributes:
      new: what is moved; None to move aside what is at the place, and no more.
      place: where it goes.
    """

    new: Path | None
    place: Path


@contextlib.contextmanager
def staging(output: Path, name: str) -> Iterator[Path]:
    """A folder to write a result to; it goes at the end, unless moves are half done.

    Args:
      output: the folder of all results, which this command holds.
      name: of the result, unlike that of any other.
    """
    entry = output / FOLDER / hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    entry.mkdir(parents=True)
    try:
        yield entry
    finally:
        if not (entry / _JOURNAL).exists():
            # What cannot be removed now, the next command removes.
            shutil.rmtree(entry, ignore_errors=True)
        with contextlib.suppress(OSError):  # holds another one
            entry.parent.rmdir()


def install(output: Path, entry: Path, moves: Sequence[Move]) -> None:
    """Moves everything to its place, or nothing.

    Args:
      output: the folder of all results, on one file system.
      entry: from `staging`, with the new files.
      moves: to do.

    Raises:
      OSError: a file could not be moved. Everything is as it was; or, if it could not
        be moved back either, the next command's `recover` tries again.
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
    """Undoes what a killed command had begun in a folder, and removes its leftovers.

    Raises:
      OSError: what was moved aside could not be moved back.
    """
    if not (output / FOLDER).is_dir():
        return
    for entry in (output / FOLDER).iterdir():
        if (entry / _JOURNAL).is_file():
            _undo(output, entry)
    shutil.rmtree(output / FOLDER)


def _undo(output: Path, entry: Path) -> None:
    moves = json.loads((entry / _JOURNAL).read_text(encoding="utf-8"))
    for index, (name, place_name) in reversed(list(enumerate(moves))):
        place, kept = output / place_name, entry / "old" / str(index)
        if name is not None and not (entry / name).exists() and place.exists():
            os.replace(place, entry / name)
        if kept.exists() or kept.is_symlink():
            os.replace(kept, place)
    (entry / _JOURNAL).unlink()
