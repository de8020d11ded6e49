"""Volume after volume: what is there is left alone, what is bad is told, the rest made.

Beside each result lies NAME.json, which says how it was made. While a volume is made
there is a hidden claim beside it, so that after a crash it is known to be ours. Ctrl-C
and SIGTERM leave nothing half-made; SIGKILL leaves the hidden folder that was written
to, which may be removed.
"""

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

from absl import logging

from common.config import flatten
from common.errors import UserError
from common.files import write_atomically
from common.progress import Progress
from ipv2.ct_io import Skipped, describe_skipped
from ipv2.scans import Job

Count = Callable[[int], None]
# (job, whether what is there may be replaced, what to call with the number of slices
# that were just finished) -> what the record says beside what was asked for.
Make = Callable[[Job, bool, Count], Mapping[str, Any]]


class Tally(NamedTuple):
    """How many volumes were made, were there before, and were skipped."""

    done: int
    there: int
    skipped: int


def run_jobs(
    task: str,
    jobs: Sequence[Job],
    make: Make,
    asked: Callable[[Job], Mapping[str, Any]],
    *,
    section: str,
    overwrite: bool,
) -> Tally:
    """Makes what is missing; a volume that raises UserError is reported and left out.

    Args:
      task: its name, for the progress.
      jobs: all of them.
      make: makes one result, whole or not at all, and returns what its record adds.
      asked: what decides a result. One that is there under other terms is an error.
      section: of the config that has `output` and `overwrite`, for messages.
      overwrite: whether to make anew what is there.

    Raises:
      UserError: what is there was made otherwise, or not by this task.
    """
    advice = f"Give another --{section}.output, or --{section}.overwrite=True."
    terms = {job: json.loads(json.dumps(asked(job))) for job in jobs}
    waiting = [job for job in jobs if overwrite or not _done(job, terms[job], advice)]
    there = len(jobs) - len(waiting)
    if there:
        logging.info("%d of %d volumes are there already", there, len(jobs))

    skipped: list[Skipped] = []
    total = sum(job.slices for job in waiting)
    with _stopped_by_sigterm(), Progress(task, total, "slices") as progress:
        for job in waiting:
            counted = 0

            def count(slices: int, job: Job = job) -> None:
                nonlocal counted
                counted += slices
                progress.update(slices, note=job.name)

            try:
                _make(job, make, terms[job], count)
            except UserError as error:
                skipped.append(Skipped(path=job.source, reason=str(error)))
            progress.update(job.slices - counted)
    if skipped:
        logging.warning(describe_skipped(skipped))
    return Tally(len(waiting) - len(skipped), there, len(skipped))


def _make(job: Job, make: Make, terms: Mapping[str, Any], count: Count) -> None:
    # `_done` let this pass: what is there is ours, an empty folder, or to be replaced.
    replace = job.target.exists()
    before = _stamp(job)
    write_atomically(job.claim, "")
    try:
        added = make(job, replace, count)
        record = json.dumps({**terms, **added}, indent=2)
        write_atomically(job.record, record + "\n")
        job.claim.unlink(missing_ok=True)
    except BaseException:
        if _stamp(job) == before:
            job.claim.unlink(missing_ok=True)
        raise


def _stamp(job: Job) -> tuple[int, int] | None:
    """What changes where a target is replaced."""
    if not job.target.exists():
        return None
    stat = job.target.stat()
    return stat.st_ino, stat.st_mtime_ns


def _done(job: Job, terms: Mapping[str, Any], advice: str) -> bool:
    """Whether the result is there; raises UserError if it was made otherwise."""
    if not _is_there(job) or job.claim.exists():
        return False
    if not job.record.is_file():
        raise UserError(
            f"{job.target}: is there, without a {job.record.name} that says how it was "
            f"made. {advice}"
        )
    try:
        made = dict(flatten(json.loads(job.record.read_text(encoding="utf-8"))))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{job.record}: not a record of a task. {advice}") from error
    differing = [
        f"  {key}: {made.get(key)!r} there, {value!r} asked for"
        for key, value in flatten(terms)
        if made.get(key) != value
    ]
    if differing:
        raise UserError(
            "\n".join([f"{job.target}: was made otherwise:", *differing, advice])
        )
    return True


def _is_there(job: Job) -> bool:
    if job.target.is_dir():
        return any(path.is_file() for path in job.target.iterdir())
    return job.target.exists()


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
