"""A piece of work on files: what is read, what appears, what says how it was made."""

import dataclasses
import hashlib
import os
from pathlib import Path

from ipv2.ct_io import SUFFIXES, output_files, suffix_of

_LONGEST_NAME = 255  # bytes, on the file systems in use


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Where a volume goes.

    Attributes:
      path: of the file, or of the folder of a DICOM series.
      series: whether it is such a folder.
    """

    path: Path
    series: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that appear, which a series alone does not tell beforehand."""
        if self.series:
            return ()
        return output_files(self.path, SUFFIXES.get(suffix_of(self.path), "dicom"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A volume, or a pair of them, to work on.

    Attributes:
      name: its path below the input folder, without the extension.
      sources: the files, or folders of series, that it is made from.
      targets: where the results go.
      record: the JSON file that says how they were made.
      slices: about how many there are.
    """

    name: str
    sources: tuple[Path, ...]
    targets: tuple[Target, ...]
    record: Path
    slices: int

    @property
    def places(self) -> tuple[Path, ...]:
        """All paths that appear; a series' folder stands for its files."""
        files = [f for t in self.targets for f in (t.files or (t.path,))]
        return (*files, self.record)


def fitting_name(name: str, suffix: str) -> str:
    """The name with a suffix; of one too long for a file, the start and a hash."""
    if len(os.fsencode(name + suffix)) <= _LONGEST_NAME:
        return name + suffix
    content = os.fsencode(name)
    tail = f"~{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    start = content[: _LONGEST_NAME - len(os.fsencode(tail))]
    return start.decode("utf-8", "ignore") + tail
