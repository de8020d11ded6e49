"""The records beside results: what was asked for, what was written, and what is ours.

A record is a JSON file: `asked` holds everything that decides the result, `leave` what
was allowed beyond the defaults, `files` each file that was written with its size, below
the output folder, and `made` what there is to know of how it went.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from common.config import flatten
from common.errors import UserError
from ipv2.ct_io import stem_of
from ipv2.jobs.job import Job, Target

_UNSTATED = "not stated"


class Asked(NamedTuple):
    """What decides a result. One that was made under equal terms is done.

    Attributes:
      terms: values as JSON holds them, under the keys of the config where there is one.
        Any difference makes it another result.
      leave: what is given or allowed where files lack it, and the rest is refused: a
        pixel size, say. A result that was made with less of it is the same; one that
        was made with more, or with another value, is not.
    """

    terms: Mapping[str, Any]
    leave: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What a record says.

    Attributes:
      asked: under which terms.
      leave: with which leave, see `Asked`.
      files: what was written: size in bytes, by the path below the output folder.
      made: what the task adds.
    """

    asked: Mapping[str, Any]
    leave: Mapping[str, Any]
    files: Mapping[str, int]
    made: Mapping[str, Any]

    def to_json(self) -> str:
        """The text of its file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_record(path: Path) -> Record | None:
    """The record in a file; None if there is no file.

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
    """Whether a path, as records hold it, can only lead below its folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts


def differences(record: Record, asked: Asked) -> list[str]:
    """Lines for the terms and the leave in which a result is not what is asked for."""
    # Through JSON and back, so that tuples and lists compare alike.
    wanted = dict(flatten(json.loads(json.dumps(asked.terms))))
    leave = json.loads(json.dumps(asked.leave))
    made = dict(flatten(record.asked))
    lines = [
        _difference(key, made, wanted)
        for key in dict.fromkeys([*wanted, *made])
        if made.get(key, _UNSTATED) != wanted.get(key, _UNSTATED)
    ]
    lines += [
        _difference(key, record.leave, leave)
        for key, value in record.leave.items()
        if leave.get(key, _UNSTATED) != value
    ]
    return lines


def _difference(key: str, made: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    there, asked = made.get(key, _UNSTATED), wanted.get(key, _UNSTATED)
    return f"  {key}: {there!r} there, {asked!r} asked for"


class Output(NamedTuple):
    """The folder of a task's results, and all that its jobs put there.

    Attributes:
      folder: of the results.
      places: of all jobs together: what lies within a series' folder may be another's.
    """

    folder: Path
    places: Collection[Path]

    def name_of(self, path: Path) -> str:
        """A path as records hold it: below the output folder."""
        return path.relative_to(self.folder).as_posix()

    def record_of(self, job: Job) -> Record | None:
        """The record of what is there of a job; None if there is none.

        Raises:
          UserError: the file is no record, or one of results that are not this job's.
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
        """Whether a job writes to a path, or did in another format."""
        if path in job.places:
            return True
        return path not in self.places and any(
            _is_at(target.path, path) or _is_at(target.path, path.parent)
            for target in job.targets
        )

    def is_whole(self, record: Record) -> bool:
        """Whether every file that a record lists is there, in its size."""
        return 0 < len(record.files) == len(self.unchanged(record))

    def has_some(self, record: Record) -> bool:
        """Whether any file that a record lists is there, in whatever size."""
        return any((self.folder / name).exists() for name in record.files)

    def unchanged(self, record: Record) -> list[str]:
        """The files of a record that are there, in their size."""
        return [
            name
            for name, size in record.files.items()
            if _size(self.folder / name) == size
        ]

    def foreign(self, job: Job, record: Record | None) -> list[Path]:
        """What lies where a job's results go, and is not as its record says."""
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
        """What lies where a job's results go, and has to stay in any case.

        That is a folder where a file goes, or a file where a folder goes; and in the
        folder of a series, files that this software has not written there.

        Args:
          job: whose results.
          record: of what was written, if there is one.
          written: names of the slices that are to be written.
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
        """What lies in a series' folder without being of the series.

        Folders and hidden files, and the results of other jobs.
        """
        return [path for path in folder.iterdir() if not self._in_series(path)]

    def _in_series(self, path: Path) -> bool:
        hidden = path.name.startswith(".")
        return not (hidden or path.is_dir() or path in self.places)

    def _there(self, target: Target) -> list[Path]:
        """What lies at a target: of a series, its files, or what is in their way."""
        if not target.series:
            return [path for path in target.files if _is_there(path)]
        folder = target.path
        if folder.is_dir() and not folder.is_symlink():
            return sorted(path for path in folder.iterdir() if self._in_series(path))
        return [folder] if _is_there(folder) else []


def _is_at(target: Path, path: Path) -> bool:
    """Whether a path is a target's, whatever its extension."""
    return path.parent == target.parent and stem_of(path) == stem_of(target)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
