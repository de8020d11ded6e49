"""What a source is, so that a result is known to be of that source and of no other."""

import datetime
import hashlib
import re
from pathlib import Path
from typing import Any

from ipv2.ct_io import folder_files, suffix_of

# Of MHD and NRRD: where the values are, if not in the same file; see `_detached`.
_DATA_FILE = {
    ".mhd": re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.M | re.I),
    ".nrrd": re.compile(rb"^data ?file:\s*(.+?)\s*$", re.M | re.I),
}
_HEADER_BYTES = 1 << 16


def identity_of(source: Path) -> dict[str, Any]:
    """What tells a source from any other: names, sizes and times of all of its files.

    Contents are not read: a file that keeps its name, its size and its time to the
    nanosecond is the same. Nor does it matter where the source lies: one that was
    moved, or copied with its times, is the same.

    Args:
      source: a file, or the folder of a DICOM series. To MHD, and to NRRD with a data
        file of its own, that file belongs too.

    Returns:
      `name`, number of `files`, `bytes` in all, when it was last `modified` (UTC), and
      the `sha256` of every file's name, size and time.

    Raises:
      OSError: a file cannot be looked at.
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
    """The files with a header's values: the one it names, or those of its list."""
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
