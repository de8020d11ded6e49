"""The records beside results: their terms and files, and which files are of a job.

A record is a JSON file: `asked` holds everything that decides the result, `leave` what
was allowed beyond the defaults, `files` the size of each file that was written, by its
path below the output folder, and `made` notes of how the work went.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from common import nested
from common.errors import UserError
from ipv2.ct_io import stem_of
from ipv2.jobs.job import Job, Target


class Terms(NamedTuple):
    """Everything that decides a result. A result that has equal terms is done.

    Attributes:
      decisive: values that JSON can hold, under config keys where there are any. Any
        difference makes another result.
      leave: values that are given or allowed for files that need them, such as a pixel
        size; without them such files are refused. A result that was made with less
        leave is the same. One that was made with more, or with other values, is not.
    """

    decisive: Mapping[str, Any]
    leave: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """The content of a record.

    Attributes:
      asked: `Terms.decisive` of the result.
      leave: `Terms.leave` of the result.
      files: size in bytes of each file that was written, by its path below the output
        folder.
      made: what the task adds.
    """

    asked: Mapping[str, Any]
    leave: Mapping[str, Any]
    files: Mapping[str, int]
    made: Mapping[str, Any]

    def to_json(self) -> str:
        """Returns the text of the record's file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_record(path: Path) -> Record | None:
    """Returns the record in a file; None if there is no file.

    Raises:
      UserError: the file is no record.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a record of a task: {error}.") from error
    keys = {field.name for field in dataclasses.fields(Record)}
    if (
        not isinstance(found, dict)
        or found.keys() != keys
        or not all(isinstance(value, dict) for value in found.values())
        or not all(is_below(name) for name in found["files"])
        or not all(type(size) is int for size in found["files"].values())
    ):
        raise UserError(f"{path}: not a record of a task.")
    return Record(**found)


def is_below(name: str) -> bool:
    """Returns whether a path of a record can only lead below its folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts


def differences(record: Record, terms: Terms) -> list[str]:
    """Returns a line for each value in which a result differs from the terms."""
    # Through JSON and back, so that tuples and lists compare alike.
    decisive, leave = json.loads(json.dumps(terms))
    found = nested.differences(record.asked, decisive)
    found += [
        one
        for one in nested.differences(record.leave, leave)
        if one.key in record.leave  # less leave is no difference
    ]
    return [
        f"  {key}: {before!r} there, {now!r} asked for" for key, before, now in found
    ]


class Output(NamedTuple):
    """The folder of a task's results, and the paths that its jobs write.

    Attributes:
      folder: the folder of the results.
      places: the paths of all jobs. A file in the folder of a series may be the result
        of another job.
    """

    folder: Path
    places: Collection[Path]

    def name_of(self, path: Path) -> str:
        """Returns a path as records hold it: below the output folder."""
        return path.relative_to(self.folder).as_posix()

    def record_of(self, job: Job) -> Record | None:
        """Returns the record of a job's results; None if there is none.

        Raises:
          UserError: the file is no record, or the record of another job's results.
        """
        record = read_record(job.record)
        for name in () if record is None else record.files:
            if not self._is_of(job, self.folder / name):
                raise UserError(
                    f"{job.record}: not a record of a task: no file of {job.name} "
                    f"would be written to {name}."
                )
        return record

    def _is_of(self, job: Job, path: Path) -> bool:
        """Returns whether a job writes to a path, or did so in another format."""
        if path in job.places:
            return True
        return path not in self.places and any(
            _is_at(target.path, path) or _is_at(target.path, path.parent)
            for target in job.targets
        )

    def is_whole(self, record: Record) -> bool:
        """Returns whether every file of a record is there and has its size."""
        return 0 < len(record.files) == len(self.unchanged(record))

    def has_some(self, record: Record) -> bool:
        """Returns whether any file of a record is there, whatever its size."""
        return any((self.folder / name).exists() for name in record.files)

    def unchanged(self, record: Record) -> list[str]:
        """Returns the files of a record that are there and have their size."""
        return [
            name
            for name, size in record.files.items()
            if _size(self.folder / name) == size
        ]

    def foreign(self, job: Job, record: Record | None) -> list[Path]:
        """Returns what lies where a job's results go and differs from its record."""
        ours = {} if record is None else record.files
        return [
            path
            for target in job.targets
            for path in self._there(target)
            if path.is_dir() or ours.get(self.name_of(path), -1) != _size(path)
        ]

    def irreplaceable(
        self, job: Job, record: Record | None, written: Collection[str]
    ) -> list[Path]:
        """Returns what lies where a job's results go and must stay in any case.

        That is a folder where a file goes, a file where a folder goes, and, in the
        folder of a series, any file that this software did not write there.

        Args:
          job: the job.
          record: the record of the job's results, if there is one.
          written: names of the slices that the job is going to write.
        """
        kept = [job.record] if job.record.is_dir() else []
        ours = () if record is None else record.files
        for target in job.targets:
            for path in self._there(target):
                if target.series and path != target.path:
                    stays = path.name not in written and self.name_of(path) not in ours
                else:
                    stays = target.series or path.is_dir()
                if stays:
                    kept.append(path)
        return kept

    def beside(self, folder: Path) -> list[Path]:
        """Returns what lies in a series' folder and is not of the series.

        That is folders, hidden files and the results of other jobs.
        """
        return [path for path in folder.iterdir() if not self._in_series(path)]

    def _in_series(self, path: Path) -> bool:
        hidden = path.name.startswith(".")
        return not (hidden or path.is_dir() or path in self.places)

    def _there(self, target: Target) -> list[Path]:
        """Returns the files at a target, or what is in their way."""
        if not target.series:
            return [path for path in target.files if _is_there(path)]
        folder = target.path
        if folder.is_dir() and not folder.is_symlink():
            return sorted(path for path in folder.iterdir() if self._in_series(path))
        return [folder] if _is_there(folder) else []


def _is_at(target: Path, path: Path) -> bool:
    """Returns whether a path is a target's, whatever its extension."""
    return path.parent == target.parent and stem_of(path) == stem_of(target)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
