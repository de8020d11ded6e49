"""The user's scans that a task works on: finds, names, reads and refuses them.

The input is a file, the folder of a DICOM series, or a folder of many volumes; or an
embedded scan, which is written to the workdir first.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.config import ConfigDict
from common.errors import UserError
from ipv2.ct_io import (
    Found,
    Grid,
    Item,
    ReadOptions,
    Skipped,
    SliceSource,
    Volume,
    count_slices,
    format_of,
    list_volumes,
    open_volume,
    read_volume,
    stem_of,
)
from ipv2.ct_io.dicom_header import read_header
from ipv2.jobs.job import Job, Target, fitting_name
from ipv2.tasks.embedded_scans import write_embedded
from ipv2.volumes.checks import check_axial, check_square


def check_scan(grid: Grid, shape: tuple[int, int, int]) -> None:
    """Raises UserError unless slices are axial HU on square pixels of known size."""
    check_slices(grid, shape)
    require_spacing(grid)
    check_square(grid)


def require_spacing(grid: Grid) -> None:
    """Raises UserError unless the size of a pixel is known."""
    if not grid.spacing_known:
        raise UserError(
            f"{grid.name}: no pixel size, which says how much rays are attenuated. "
            "Give --config.data.pixel_mm=0.8, say, or files that state it."
        )


def check_slices(grid: Grid, shape: tuple[int, int, int]) -> None:
    """Raises UserError unless slices are axial, in HU, and not tiny."""
    if grid.unit == "grey":
        raise UserError(
            f"{grid.name}: a PNG has no HU. State the window it was made with, "
            "--config.data.window='(-600.0, 1500.0)' for instance."
        )
    grid.require_hu()
    check_axial(grid, shape)


def read_scan(path: Path, options: ReadOptions) -> Volume:
    """Returns the volume of a file or series, if it can be simulated from.

    Raises:
      UserError: it cannot be read, or not be simulated from.
    """
    volume = read_volume(path, options)
    check_scan(volume, volume.shape)
    return volume


@contextlib.contextmanager
def open_scan(path: Path, options: ReadOptions) -> Iterator[SliceSource]:
    """Yields the same volume, whose slices can be read while the context lasts."""
    with open_volume(path, options) as volume:
        check_scan(volume, volume.shape)
        yield volume


def evenly_spaced(count: int, at_most: int) -> np.ndarray:
    """Returns at most so many indices below `count`, from the first to the last."""
    places = np.linspace(0, count - 1, min(at_most, count))
    return places.round().astype(int)


def input_of(config: ConfigDict, workdir: Path) -> Path:
    """Returns the file or folder to read; writes the embedded scans if they are it.

    Raises:
      UserError: no input is given, or two are.
    """
    data = config.data
    if bool(data.input) == bool(data.embedded):
        raise UserError(
            "give one input: --config.data.input=DIR (a CT file, a DICOM series, or a "
            "folder of many), or the variant :sample_ct or :smoke of the recipe"
        )
    if data.input:
        return Path(data.input)
    return write_embedded(data.embedded, data, workdir / "input")


def find_scans(source: Path) -> Found:
    """Returns the volumes below a file or folder, each with a name.

    Raises:
      UserError: there is no volume.
    """
    source = source.resolve()
    if not source.is_dir():
        return Found(items=(Item(name=stem_of(source), path=source),), unused=())
    found = list_volumes(source)
    if not found.items:
        raise UserError(
            f"{source}: no CT volume found. Give a DICOM series, NIfTI, MHA, MHD, NRRD "
            "or PNG file, or a folder of them."
        )
    items = tuple(
        Item(name=item.name or source.name, path=item.path) for item in found.items
    )
    return Found(items=items, unused=found.unused)


class Listed(NamedTuple):
    """The jobs of an input, and the files of the input that belong to none."""

    jobs: list[Job]
    unused: tuple[Skipped, ...]


def list_jobs(source: Path, output: Path, *, key: str = "config.output") -> Listed:
    """Returns the jobs on the volumes below a file or folder.

    Args:
      source: the file or folder.
      output: the folder of the results.
      key: the config key of `output`, for messages.

    Raises:
      UserError: there is no volume, or a result would lie on, in or around the input.
    """
    require_apart(output, [source], key=key)
    source, output = source.resolve(), output.resolve()
    found = find_scans(source)
    jobs = []
    for item in found.items:
        # The result of a series in the input folder itself has that folder's name.
        below = source.name if item.path == source else item.path.relative_to(source)
        frames = _frames(item.path)
        if frames:  # they become the slices of a series
            below = item.name
        series = item.path.is_dir() or frames > 0
        target = Target(path=output / below, series=series)
        record = fitting_name(target.path.name, ".json")
        jobs.append(
            Job(
                name=item.name,
                sources=(item.path,),
                targets=(target,),
                record=target.path.with_name(record),
                slices=frames or count_slices(item),
            )
        )
    require_jobs_apart(jobs, key=key)
    return Listed(jobs, found.unused)


def _frames(path: Path) -> int:
    """The number of frames of a multi-frame DICOM file; 0 of any other file."""
    if path.is_dir() or format_of(path) != "dicom":
        return 0
    try:
        header = read_header(path)
    except UserError:
        return 0  # the message comes when it is read
    return header.frames if header.is_multi_frame else 0


def require_apart(output: Path, inputs: Sequence[Path], *, key: str) -> None:
    """Raises UserError if the output is, lies in, or holds an input folder.

    Links are followed. The output may lie in the folder of an input file.

    Args:
      output: the folder of the results.
      inputs: folders or files.
      key: the config key of `output`, for messages.
    """
    output = output.resolve()
    for given in inputs:
        real = given.resolve()
        folder = real if real.is_dir() else real.parent
        if output == folder:
            relation = "is"
        elif folder.is_relative_to(output):
            relation = "holds"
        elif real.is_dir() and output.is_relative_to(real):
            relation = "lies in"
        else:
            continue
        raise UserError(
            f"{key}: {output} {relation} the input folder {folder}; give another folder"
        )


def require_jobs_apart(jobs: Sequence[Job], *, key: str) -> None:
    """Raises UserError if two results have one place, or a result lies on a source.

    Links are followed here too: folders in an input or an output may be links.
    """
    taken: dict[Path, Job] = {}
    for job in jobs:
        for place in job.places:
            if place in taken:
                first, second = taken[place].sources[0], job.sources[0]
                raise UserError(
                    f"{first} and {second} would both be written to {place}; move or "
                    "rename one of them."
                )
            taken[place] = job
    sources = {source.resolve() for job in jobs for source in job.sources}
    around = {parent for source in sources for parent in source.parents}
    folders = {target.path for job in jobs for target in job.targets if target.series}
    for place in taken:
        real = place.resolve()
        if not sources.isdisjoint((real, *real.parents)) or (
            place in folders and real in around
        ):
            raise UserError(
                f"{key}: {place} would be written on the input ({real}); give "
                "another folder"
            )
