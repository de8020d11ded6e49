"""Files that are either whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary sibling of `path` to write; it takes the name at the end.

    If the body raises, the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers choose the format by it. Not `tempfile`: its files
    # are for their owner alone, and stay so under the new name.
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
