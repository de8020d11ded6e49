"""The identity of a source: tells whether a result was made of that source."""

import datetime
import hashlib
import re
from pathlib import Path
from typing import Any

from ipv2.ct_io import folder_files, suffix_of

# How MHD and NRRD headers name the file of the values, if it is another; `_detached`.
_DATA_FILE = {
    ".mhd": re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.M | re.I),
    ".nrrd": re.compile(rb"^data ?file:\s*(.+?)\s*$", re.M | re.I),
}
_HEADER_BYTES = 1 << 16


def identity_of(source: Path) -> dict[str, Any]:
    """Returns what tells a source from others: names, sizes and times of its files.

    The content is not read: a file that keeps its name, its size and its time to the
    nanosecond is the same. A source that was moved, or copied with its times, is the
    same too.

    Args:
      source: a file, or the folder of a DICOM series. The data file of an MHD or NRRD
        header belongs to the source.

    Returns:
      `name`, the number of `files`, `bytes` in all, the time when it was last
      `modified` (UTC), and the `sha256` of every file's name, size and time.

    Raises:
      OSError: a file's size and time cannot be read.
    """
    stats = [(path.name, path.stat()) for path in _files(source)]
    lines = [f"{name}\0{s.st_size}\0{s.st_mtime_ns}\n" for name, s in stats]
    newest = max((s.st_mtime_ns for _, s in stats), default=0) // 10**9
    text = "".join(lines).encode("utf-8", "surrogateescape")
    return {
        "name": source.name,
        "files": len(stats),
        "bytes": sum(s.st_size for _, s in stats),
        "modified": datetime.datetime.fromtimestamp(newest, datetime.UTC).isoformat(),
        "sha256": hashlib.sha256(text).hexdigest(),
    }


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source, *_detached(source)]
    return list(folder_files(source).dicom)


def _detached(path: Path) -> list[Path]:
    """The files with the values of a header: the one it names, or those of its list."""
    pattern = _DATA_FILE.get(suffix_of(path))
    if pattern is None:
        return []
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if suffix_of(path) == ".nrrd":
        header = header.partition(b"\n\n")[0]  # what follows may be values
    found = pattern.search(header)
    if found is None:
        return []
    named = found[1]
    if named.upper().startswith(b"LIST"):
        names = header[found.end() :].split(b"\n")
    else:
        names = [named]
    paths = [
        path.parent / name.strip().decode("utf-8", "surrogateescape")
        for name in names
        if 0 < len(name.strip()) < 256 and b"\0" not in name
    ]
    return [found for found in paths if found.is_file()]
