"""A job: the files that are read, those that appear, and their record."""

import dataclasses
import hashlib
import os
from pathlib import Path

from ipv2.ct_io import SUFFIXES, output_files, suffix_of

_LONGEST_NAME = 255  # bytes, on the file systems in use


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """The place of a volume.

    Attributes:
      path: path of the file, or of the folder of a DICOM series.
      series: whether it is such a folder.
    """

    path: Path
    series: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that appear; those of a series are not known beforehand: ()."""
        if self.series:
            return ()
        return output_files(self.path, SUFFIXES.get(suffix_of(self.path), "dicom"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The work on a volume, or on a pair of volumes.

    Attributes:
      name: the volume's path below the input folder, without the extension.
      sources: the files, or the folders of series, that are read.
      targets: the places of the results.
      record: the JSON file that says how the results were made.
      slices: the approximate number of slices.
    """

    name: str
    sources: tuple[Path, ...]
    targets: tuple[Target, ...]
    record: Path
    slices: int

    @property
    def places(self) -> tuple[Path, ...]:
        """All paths that appear; the folder of a series stands for its files."""
        files = [f for t in self.targets for f in (t.files or (t.path,))]
        return (*files, self.record)


def fitting_name(name: str, suffix: str) -> str:
    """Returns the name with a suffix; of a name too long for a file start and hash."""
    if len(os.fsencode(name + suffix)) <= _LONGEST_NAME:
        return name + suffix
    content = os.fsencode(name)
    tail = f"~{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    start = content[: _LONGEST_NAME - len(os.fsencode(tail))]
    return start.decode("utf-8", "ignore") + tail
