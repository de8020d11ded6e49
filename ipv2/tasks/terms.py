"""From a job and its settings to the terms that decide its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.version import VERSION
from ipv2.ct_io import ReadOptions, suffix_of
from ipv2.jobs.job import Job
from ipv2.jobs.records import Terms
from ipv2.jobs.source_identity import identity_of
from ipv2.tasks.job_settings import FileSettings


def job_terms(
    model: str,
    job: Job,
    decisive: Mapping[str, Any],
    files: FileSettings,
    *,
    sources: Sequence[str] = ("source",),
    needs_spacing: bool,
) -> Terms:
    """Returns all that decides the results of a job.

    Args:
      model: the task and the version of its method.
      job: the job.
      decisive: the task's settings, under the keys of a record.
      files: how the job's files are read and written.
      sources: what the record calls each of the job's sources.
      needs_spacing: whether the task refuses volumes without a pixel size. Then a
        given size changes nothing for the volumes that state one.
    """
    reading = _reading_terms(files.reading, job.sources, needs_spacing=needs_spacing)
    is_multi_frame = files.multi_frame and any(t.series for t in job.targets)
    return Terms(
        {
            "task": model,
            "software_version": VERSION,
            "name": job.name,
            **{
                name: identity_of(source)
                for name, source in zip(sources, job.sources, strict=True)
            },
            **decisive,
            **reading.decisive,
            **({"config.data.multiframe": True} if is_multi_frame else {}),
        },
        reading.leave,
    )


def _reading_terms(
    options: ReadOptions, sources: Sequence[Path], *, needs_spacing: bool
) -> Terms:
    """The options that can make a difference for these sources."""
    default = ReadOptions()
    decisive: dict[str, object] = {}
    leave: dict[str, object] = {}
    if any(suffix_of(source) == ".png" for source in sources):
        decisive["config.data.window"] = options.window
    if not needs_spacing:
        decisive["config.data.pixel_mm"] = options.pixel_mm
    names = ["pixel_mm"] if needs_spacing else []
    names.append("trust_hu")
    if any(source.is_dir() for source in sources):
        names += ["series", "gaps"]
    for name in names:
        if getattr(options, name) != getattr(default, name):
            leave[f"config.data.{name}"] = getattr(options, name)
    return Terms(decisive, leave)
