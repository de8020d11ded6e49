"""Result after result: what is there is left alone, what is bad is told, the rest made.

The one way in which tasks write below the user's folders. Beside each result lies a
record (`records`), which says how it was made; a result whose record says what is asked
for is done. What is there otherwise, made in another way or not by this software, ends
the command before any work, unless `overwrite` is given; and then, too, only what lies
exactly where a result goes is replaced. A result appears whole or not at all, and one
that fails leaves what was there before (`staging`). One command at a time works in a
folder.

Ctrl-C and SIGTERM leave nothing half-made; what SIGKILL leaves, the next command in the
folder puts right. Until then it lies in the hidden folder `.making`.
"""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

from absl import logging

from common.errors import Incomplete, UserError
from common.folder_lock import hold_folder
from common.progress import Progress
from common.version import COMMIT
from ipv2.ct_io import Skipped, describe_skipped
from ipv2.jobs.job import Job, Target
from ipv2.jobs.records import (
    Asked,
    Output,
    Record,
    differences,
)
from ipv2.jobs.staging import (
    Move,
    install,
    recover,
    staging,
)

_MOST_TOLD = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What making a result needs to know, and may tell.

    Attributes:
      places: where to write the results to: a path for each of the job's targets, with
        the same last part. Nothing is there.
      count: to be called with the number of slices that were just finished.
      leave_out: to be called with files that did not go into the result.
    """

    places: tuple[Path, ...]
    count: Callable[[int], None]
    leave_out: Callable[[Sequence[Skipped]], None]


# What the record says beside what was asked for.
Make: TypeAlias = Callable[[Job, Work], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Destination:
    """Where results go, and how a command may deal with what is there.

    Attributes:
      folder: of the results; `Job.places` lie in it.
      section: of the config that has `output` and `overwrite`, for messages.
      overwrite: whether to make anew what is there.
    """

    folder: Path
    section: str
    overwrite: bool


class Tally(NamedTuple):
    """How many results were made, were there before, and were skipped."""

    done: int
    there: int
    skipped: int


def run_jobs(
    task: str,
    jobs: Sequence[Job],
    make: Make,
    asked: Callable[[Job], Asked],
    to: Destination,
    *,
    skipped: Sequence[Skipped] = (),
    unused: Sequence[Skipped] = (),
    items: str = "volumes",
) -> Tally:
    """Makes what is missing; what cannot be read or written is listed and left out.

    That is what raises UserError or OSError in `make`, or when its files are moved.

    Args:
      task: its name, for the progress.
      jobs: all of them.
      make: writes one result to `Work.places`, and returns what its record adds.
      asked: what decides a result.
      to: where results go.
      skipped: what was left out before, to be counted and listed with the rest.
      unused: files that are no input, to be listed.
      items: what a job is, in the plural.

    Raises:
      UserError: another command works in the folder, or what is there was made
        otherwise, or not by this software; every such result is named, up to some ten.
    """
    run = _Run(jobs=jobs, asked=asked, to=to)
    run.skipped.extend(skipped)
    run.unused.extend(unused)
    with _stopped_by_sigterm(), hold_folder(to.folder, f"{to.section}.output"):
        with _told(to.folder):
            recover(to.folder)
        waiting = run.plan()
        if run.there:
            logging.info("%d of %d %s are there already", run.there, len(jobs), items)
        total = sum(job.slices for job, _, _ in waiting)
        with Progress(task, total, "slices") as progress:
            for job, wanted, record in waiting:
                run.make(job, wanted, record, make, progress)
    tell_left_out(run.skipped, run.unused)
    return Tally(run.done, run.there, len(run.skipped))


def tell_left_out(skipped: Sequence[Skipped], unused: Sequence[Skipped]) -> None:
    """Lists what was not worked on, at the end of a command.

    Args:
      skipped: volumes or pairs that could not be used.
      unused: files that are no volume, or of no volume.
    """
    for text in (
        describe_skipped(skipped),
        describe_skipped(unused, word="files not used"),
    ):
        if text:
            logging.warning("%s", text)


def conclude(tally: Tally, failed: str, *, strict: bool) -> None:
    """Ends a command as its results are; does nothing where all went well.

    Args:
      tally: from `run_jobs`.
      failed: what to say if there is no result at all.
      strict: whether skipped inputs count as a failure.

    Raises:
      UserError: nothing was made, nor was anything there.
      Incomplete: strict, and something was skipped.
    """
    if not tally.done and not tally.there:
        raise UserError(f"{failed}; see the list above")
    if strict and tally.skipped:
        raise Incomplete(
            f"{tally.skipped} skipped, see the list above, and config.strict asks to "
            "be told; everything else is done"
        )


@dataclasses.dataclass(kw_only=True)
class _Run:
    """A command's jobs, and what has become of them so far."""

    jobs: Sequence[Job]
    asked: Callable[[Job], Asked]
    to: Destination
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    unused: list[Skipped] = dataclasses.field(default_factory=list)
    done: int = 0
    there: int = 0

    def __post_init__(self) -> None:
        places = frozenset(place for job in self.jobs for place in job.places)
        self.output = Output(self.to.folder, places)

    def plan(self) -> list[tuple[Job, Asked, Record | None]]:
        """The jobs to do, with the records of what is there.

        Raises:
          UserError: something there must not be replaced.
        """
        waiting: list[tuple[Job, Asked, Record | None]] = []
        problems: list[str] = []
        for job in self.jobs:
            with self._catching(job):
                asked = self.asked(job)
                record, problem = self._look(job, asked)
                if problem:
                    problems.append(problem)
                elif record is not None and self._is_done(record):
                    self.there += 1
                else:
                    waiting.append((job, asked, record))
        if problems:
            more = len(problems) - _MOST_TOLD
            told = [*problems[:_MOST_TOLD], *([f"... and {more} more"] * (more > 0))]
            raise UserError("\n".join([*told, self._advice()]))
        return waiting

    def _is_done(self, record: Record) -> bool:
        return not self.to.overwrite and self.output.is_whole(record)

    def _look(self, job: Job, asked: Asked) -> tuple[Record | None, str]:
        """The record of what is there, and what speaks against replacing that."""
        try:
            record = self.output.record_of(job)
        except UserError as error:
            if not self.to.overwrite or job.record.is_dir():
                return None, str(error)
            record = None
        if self.to.overwrite:
            return record, self._irreplaceable(job, record, _names_in(job.sources))
        why = f"is there, without a {job.record.name} that says how it was made"
        if record is not None:
            lines = differences(record, asked)
            if lines and self.output.has_some(record):
                place = job.targets[0].path
                lines = [f"{place}: was made otherwise:", *lines, *_moved(record, job)]
                return record, "\n".join(lines)
            if self.output.is_whole(record):
                return record, ""
            why = f"is not what {job.record.name} says was written"
        foreign = self.output.foreign(job, record)
        return record, f"{foreign[0]}: {why}" if foreign else ""

    def _irreplaceable(
        self, job: Job, record: Record | None, written: frozenset[str]
    ) -> str:
        kept = self.output.irreplaceable(job, record, written)
        if not kept:
            return ""
        return (
            f"{kept[0]}: is in the way, and is not replaced, since this software did "
            "not write it there. Move or remove it yourself"
        )

    def _advice(self) -> str:
        section = self.to.section
        if self.to.overwrite:
            return f"Or give another --{section}.output."
        return f"Give another --{section}.output, or --{section}.overwrite=True."

    @contextlib.contextmanager
    def _catching(self, job: Job) -> Iterator[None]:
        """Lists a job whose files cannot be read or written."""
        try:
            yield
        except (UserError, OSError) as error:
            self.skipped.append(Skipped(path=job.sources[0], reason=words(error)))

    def make(
        self,
        job: Job,
        asked: Asked,
        record: Record | None,
        make: Make,
        progress: Progress,
    ) -> None:
        """Makes a result, or lists why it could not be made."""
        counted = 0

        def count(slices: int) -> None:
            nonlocal counted
            counted += slices
            progress.update(slices, note=job.name)

        with (
            self._catching(job),
            staging(self.to.folder, self.output.name_of(job.record)) as entry,
        ):
            places = tuple(
                entry / "new" / str(index) / target.path.name
                for index, target in enumerate(job.targets)
            )
            work = Work(places=places, count=count, leave_out=self.unused.extend)
            made = make(job, work)
            self._install(job, asked, record, made, entry, places)
            self.done += 1
        progress.update(job.slices - counted)

    def _install(
        self,
        job: Job,
        asked: Asked,
        before: Record | None,
        made: Mapping[str, Any],
        entry: Path,
        places: Sequence[Path],
    ) -> None:
        """Moves the staged files and their record to where they belong."""
        moves: list[Move] = []
        files: dict[str, int] = {}
        for target, staged in zip(job.targets, places, strict=True):
            new = _staged(target, staged)
            for file in new:
                place = (
                    target.path / file.name
                    if target.series
                    else (target.path.parent / file.name)
                )
                files[self.output.name_of(place)] = file.stat().st_size
            self._require_free(job, before, target, new)
            moves += self._moves(target, staged, new)
        moves += self._obsolete(before, files)
        # Stated, not compared: another commit makes no other result.
        made = {"commit": COMMIT, **made}
        now = Record(asked=asked.terms, leave=asked.leave, files=files, made=made)
        record = entry / "record.json"
        record.write_text(now.to_json(), encoding="utf-8")
        install(self.to.folder, entry, [*moves, Move(record, job.record)])

    def _require_free(
        self, job: Job, before: Record | None, target: Target, new: Sequence[Path]
    ) -> None:
        """Raises UserError if something has come in the way meanwhile."""
        alone = dataclasses.replace(job, targets=(target,))
        written = frozenset(file.name for file in new)
        if self.to.overwrite:
            problem = self._irreplaceable(alone, before, written)
        else:
            foreign = self.output.foreign(alone, before)
            problem = f"{foreign[0]}: is in the way" if foreign else ""
        if problem:
            raise UserError(f"{problem}. {self._advice()}")

    def _moves(self, target: Target, staged: Path, new: Sequence[Path]) -> list[Move]:
        if not target.series:
            # The header that names the data (MHD) last.
            ordered = sorted(new, key=lambda file: file.name == target.path.name)
            return [Move(file, target.path.parent / file.name) for file in ordered]
        if target.path.is_dir() and self.output.beside(target.path):
            return [Move(file, target.path / file.name) for file in new]
        return [Move(staged, target.path)]

    def _obsolete(self, before: Record | None, files: Mapping[str, int]) -> list[Move]:
        """Moves aside what was written before and is not written now."""
        if before is None:
            return []
        return [
            Move(None, self.to.folder / name)
            for name in self.output.unchanged(before)
            if name not in files
        ]


def _moved(record: Record, job: Job) -> list[str]:
    """A line for other sources than those that a result was made of."""
    before, now = record.made.get("sources"), [str(path) for path in job.sources]
    return [] if before in (None, now) else [f"  made of {before}, asked for {now}"]


def _staged(target: Target, staged: Path) -> list[Path]:
    """The files that were written for a target.

    Raises:
      RuntimeError: others than the target foresees.
    """
    found = sorted((staged if target.series else staged.parent).iterdir())
    names = [path.name for path in found]
    if not target.series and names != sorted(path.name for path in target.files):
        raise RuntimeError(f"{target.path}: {names} were written")
    return found


def _names_in(sources: Sequence[Path]) -> frozenset[str]:
    """Names that the slices of a result may have: those of its sources."""
    folders = [source for source in sources if source.is_dir()]
    return frozenset(path.name for folder in folders for path in folder.iterdir())


def words(error: UserError | OSError) -> str:
    """The reason to tell for what could not be read or written."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return str(error)


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: what an interrupted command left here cannot be put right: "
            f"{words(error)}"
        ) from error


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM, which schedulers send, stops as Ctrl-C does, and what is begun goes."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python takes handlers from the main thread alone
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
