"""Writes files that are complete or do not exist."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path`, which is renamed to `path` at the end.

    If the body raises, the temporary file is removed and `path` does not change.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, because writers choose the format by it. `tempfile` is not
    # used, because only the owner can read its files, even after the renaming.
    suffix = "".join(path.suffixes)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str) -> None:
    """Writes a text file that is never seen half-written."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
