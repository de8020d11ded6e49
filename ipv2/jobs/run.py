"""Runs jobs: keeps the results that are there, makes the others, lists the failures.

All tasks write below the user's folders in this way. A record (`records`) lies beside
each result and says how it was made. A result is done if its record has the terms of
the command. Any other file in its place ends the command before any work, whether it
was made in another way or not by this software. With `overwrite` the command replaces
such files, but only those that lie exactly where a result goes. A result appears whole
or not at all, and a job that fails leaves what was there before (`staging`). One
command at a time works in a folder.

Ctrl-C and SIGTERM leave nothing half-made. SIGKILL may leave files in the hidden folder
`.making`; the next command in the folder puts them right.
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
from ipv2.jobs.records import Output, Record, Terms, differences
from ipv2.jobs.staging import Move, install, recover, staging

_MOST_LISTED = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Where a job writes, and whom it reports to.

    Attributes:
      places: where to write the results: a path for each of the job's targets, with the
        same last part. Nothing is there.
      count: takes the number of slices that were just finished.
      leave_out: takes the files that did not go into the result.
    """

    places: tuple[Path, ...]
    count: Callable[[int], None]
    leave_out: Callable[[Sequence[Skipped]], None]


# Makes a result, and returns what its record holds under `made`.
Make: TypeAlias = Callable[[Job, Work], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Destination:
    """Where results go, and whether they may replace what is there.

    Attributes:
      folder: the folder of the results; `Job.places` lie in it.
      section: the section of the config with `output` and `overwrite`, for messages.
      overwrite: whether to make results that are there again.
    """

    folder: Path
    section: str
    overwrite: bool


class Tally(NamedTuple):
    """Counts of results that were made, were there before, or were skipped."""

    done: int
    there: int
    skipped: int


def run_jobs(
    task: str,
    jobs: Sequence[Job],
    make: Make,
    terms: Callable[[Job], Terms],
    to: Destination,
    *,
    skipped: Sequence[Skipped] = (),
    unused: Sequence[Skipped] = (),
    items: str = "volumes",
) -> Tally:
    """Makes the results that are missing.

    A job whose files cannot be read or written is listed and skipped: one that raises
    UserError or OSError in `make`, or while its files are moved.

    Args:
      task: the task's name, for the progress line.
      jobs: all jobs.
      make: writes one result to `Work.places`, and returns what its record adds.
      terms: returns all that decides the result of a job.
      to: where results go.
      skipped: inputs that were left out before; counted and listed with the others.
      unused: files that are no input; listed.
      items: the word for several jobs.

    Raises:
      UserError: another command works in the folder, or files there were made in
        another way or not by this software. The message names up to ten of them.
    """
    run = _Run(jobs=jobs, terms=terms, to=to)
    run.skipped.extend(skipped)
    run.unused.extend(unused)
    with _stopped_by_sigterm(), hold_folder(to.folder, f"{to.section}.output"):
        with _named_folder(to.folder):
            recover(to.folder)
        waiting = run.plan()
        if run.there:
            logging.info("%d of %d %s are there already", run.there, len(jobs), items)
        total = sum(job.slices for job, _, _ in waiting)
        with Progress(task, total, "slices") as progress:
            for job, job_terms, record in waiting:
                run.make(job, job_terms, record, make, progress)
    log_left_out(run.skipped, run.unused)
    return Tally(run.done, run.there, len(run.skipped))


def log_left_out(skipped: Sequence[Skipped], unused: Sequence[Skipped]) -> None:
    """Logs the inputs that a command left out.

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
    """Raises if a command has no result, or skipped an input that it must not skip.

    Args:
      tally: from `run_jobs`.
      failed: the message if there is no result at all.
      strict: whether a skipped input is a failure.

    Raises:
      UserError: no result was made, and none was there.
      Incomplete: strict, and an input was skipped.
    """
    if not tally.done and not tally.there:
        raise UserError(f"{failed}; see the list above")
    if strict and tally.skipped:
        raise Incomplete(
            f"{tally.skipped} skipped, see the list above (config.strict=True); "
            "everything else is done"
        )


@dataclasses.dataclass(kw_only=True)
class _Run:
    """The jobs of a command, and the counts so far."""

    jobs: Sequence[Job]
    terms: Callable[[Job], Terms]
    to: Destination
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    unused: list[Skipped] = dataclasses.field(default_factory=list)
    done: int = 0
    there: int = 0

    def __post_init__(self) -> None:
        places = frozenset(place for job in self.jobs for place in job.places)
        self.output = Output(self.to.folder, places)

    def plan(self) -> list[tuple[Job, Terms, Record | None]]:
        """Returns the jobs to do, their terms, and the records that are there.

        Raises:
          UserError: a file is there that must not be replaced.
        """
        waiting: list[tuple[Job, Terms, Record | None]] = []
        problems: list[str] = []
        for job in self.jobs:
            with self._catching(job):
                terms = self.terms(job)
                record, problem = self._find(job, terms)
                if problem:
                    problems.append(problem)
                elif record is not None and self._is_done(record):
                    self.there += 1
                else:
                    waiting.append((job, terms, record))
        if problems:
            more = len(problems) - _MOST_LISTED
            listed = [
                *problems[:_MOST_LISTED],
                *([f"... and {more} more"] * (more > 0)),
            ]
            raise UserError("\n".join([*listed, self._advice()]))
        return waiting

    def _is_done(self, record: Record) -> bool:
        return not self.to.overwrite and self.output.is_whole(record)

    def _find(self, job: Job, terms: Terms) -> tuple[Record | None, str]:
        """The record that is there, and why the job must not go on; '' if it may."""
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
            lines = differences(record, terms)
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
        """Notes a job as skipped if its files cannot be read or written."""
        try:
            yield
        except (UserError, OSError) as error:
            self.skipped.append(Skipped(path=job.sources[0], reason=reason_of(error)))

    def make(
        self,
        job: Job,
        terms: Terms,
        record: Record | None,
        make: Make,
        progress: Progress,
    ) -> None:
        """Makes a result, or notes why it could not be made."""
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
            self._install(job, terms, record, made, entry, places)
            self.done += 1
        progress.update(job.slices - counted)

    def _install(
        self,
        job: Job,
        terms: Terms,
        before: Record | None,
        made: Mapping[str, Any],
        entry: Path,
        places: Sequence[Path],
    ) -> None:
        """Moves the staged files and their record to their places."""
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
        # Stated and not compared: another commit makes no other result.
        made = {"commit": COMMIT, **made}
        now = Record(asked=terms.decisive, leave=terms.leave, files=files, made=made)
        record = entry / "record.json"
        record.write_text(now.to_json(), encoding="utf-8")
        install(self.to.folder, entry, [*moves, Move(record, job.record)])

    def _require_free(
        self, job: Job, before: Record | None, target: Target, new: Sequence[Path]
    ) -> None:
        """Raises UserError if a file has come into the way since the start."""
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
        """The moves aside of files that were written before and are not written now."""
        if before is None:
            return []
        return [
            Move(None, self.to.folder / name)
            for name in self.output.unchanged(before)
            if name not in files
        ]


def _moved(record: Record, job: Job) -> list[str]:
    """A line that says which sources a result was made of, if they are others."""
    before, now = record.made.get("sources"), [str(path) for path in job.sources]
    return [] if before in (None, now) else [f"  made of {before}, asked for {now}"]


def _staged(target: Target, staged: Path) -> list[Path]:
    """The files that were written for a target.

    Raises:
      RuntimeError: they are not the files of the target.
    """
    found = sorted((staged if target.series else staged.parent).iterdir())
    names = [path.name for path in found]
    if not target.series and names != sorted(path.name for path in target.files):
        raise RuntimeError(f"{target.path}: {names} were written")
    return found


def _names_in(sources: Sequence[Path]) -> frozenset[str]:
    """The names that the slices of a result may have: those of its sources."""
    folders = [source for source in sources if source.is_dir()]
    return frozenset(path.name for folder in folders for path in folder.iterdir())


def reason_of(error: UserError | OSError) -> str:
    """Returns the reason why a file could not be read or written."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return str(error)


@contextlib.contextmanager
def _named_folder(folder: Path) -> Iterator[None]:
    """Names the folder in what goes wrong while it is put right."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: an interrupted command left files that cannot be put right: "
            f"{reason_of(error)}"
        ) from error


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM, which schedulers send, stop the command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can set handlers
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
