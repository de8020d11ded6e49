"""The user's scans that a task goes through: finding, naming, reading, refusing.

The input is a file, the folder of a DICOM series, or a folder of many volumes, or an
embedded scan that is written to the workdir first.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.config import ConfigDict
from common.errors import UserError
from ipv2 import settings
from ipv2.ct_io import (
    Grid,
    Item,
    Volume,
    count_slices,
    list_volumes,
    read_volume,
    stem_of,
)
from ipv2.embedded_scans import write_embedded


class Job(NamedTuple):
    """A volume to work on.

    Attributes:
      name: its path below the input folder, without the extension.
      source: its file or folder.
      target: where the result goes.
      slices: about how many it has.
    """

    name: str
    source: Path
    target: Path
    slices: int

    @property
    def record(self) -> Path:
        """Where is said how the result was made; written last."""
        return self.target.with_name(f"{self.target.name}.json")

    @property
    def claim(self) -> Path:
        """Is there while the result is made; see `jobs`."""
        return self.target.with_name(f".{self.target.name}.making")


def check_scan(volume: Volume) -> None:
    """Raises UserError unless slices are axial HU on square pixels of known size."""
    check_slices(volume, volume.shape)
    if not volume.spacing_known:
        raise UserError(
            f"{volume.name}: no pixel size, which says how much rays are attenuated. "
            "Give --config.data.pixel_mm=0.8, say, or NIfTI, MHA, NRRD or DICOM."
        )
    _, row, column = volume.spacing_mm
    # 1e-3: headers round; a tenth of a percent moves no HU.
    if abs(row / column - 1) > 1e-3:
        raise UserError(
            f"{volume.name}: pixels of {row:g} x {column:g} mm. Rays are traced "
            "through square pixels; resample the volume to square ones."
        )
    refuse_grey_levels(volume, float(volume.hu.min()), float(volume.hu.max()))


def check_slices(grid: Grid, shape: tuple[int, int, int]) -> None:
    """Raises UserError unless slices are axial, in HU, and not tiny."""
    grid.require_hu()
    # 0.9: gantries and necks tilt by up to 25 degrees.
    if abs(grid.normal[2]) < 0.9:
        raise UserError(
            f"{grid.name}: not axial slices (their normal is "
            f"{np.round(grid.normal, 2).tolist()}). Scanners measure axial slices, and "
            "their noise lies within these; reorient the volume."
        )
    if min(shape[1:]) < 16:
        raise UserError(
            f"{grid.name}: slices of {shape[1]} x {shape[2]} pixels; at least 16 x 16 "
            "are needed."
        )


def refuse_grey_levels(grid: Grid, low: float, high: float) -> None:
    """Raises UserError if a volume's lowest and highest value are those of grey."""
    if low >= 0 and high <= 255:
        raise UserError(
            f"{grid.name}: values from {low:g} to {high:g} are grey levels, not HU "
            "(air is -1000, water 0)."
        )


def read_scan(path: Path, config: ConfigDict) -> Volume:
    """The volume of a file or series, read as `config.data` says, known to be usable.

    Raises:
      UserError: it cannot be read, or not be simulated from.
    """
    data = config.data
    volume = read_volume(path, settings.read_options(config))
    if volume.unit == "grey":
        raise UserError(
            f"{path}: a PNG has no HU. State the window it was made with, "
            "--config.data.window='(-600.0, 1500.0)' for instance, and its pixel size, "
            "--config.data.pixel_mm=0.8"
        )
    if not volume.spacing_known and data.pixel_mm:
        volume = dataclasses.replace(
            volume,
            spacing_mm=(1.0, data.pixel_mm, data.pixel_mm),
            spacing_known=True,
        )
    check_scan(volume)
    return volume


def input_of(config: ConfigDict, workdir: Path) -> Path:
    """The file or folder to read; the embedded scans are written to the workdir first.

    Raises:
      UserError: none is given, or two are.
    """
    data = config.data
    if bool(data.input) == bool(data.embedded):
        raise UserError(
            "give one input: --config.data.input=DIR (a CT file, a DICOM series, or a "
            "folder of many), or the variant :sample_ct or :smoke of the recipe"
        )
    return Path(data.input) if data.input else write_embedded(config, workdir / "input")


def list_jobs(source: Path, output: Path, *, key: str = "config.output") -> list[Job]:
    """The volumes below a file or folder, and where their results go.

    Args:
      source: the file or folder.
      output: the folder that the results go to.
      key: that names `output`, for messages.

    Raises:
      UserError: there is none, or a result would lie upon or within the input.
    """
    source = source.resolve()
    output = output.resolve()
    if source.is_dir() and (output == source or source in output.parents):
        raise UserError(
            f"{key}: {output} is the input folder or lies in it; give another folder"
        )
    if source.is_dir():
        items = list(list_volumes(source).items)
    else:
        items = [Item(name=stem_of(source), path=source)]
    if not items:
        raise UserError(
            f"{source}: no CT volume found. Give a DICOM series, NIfTI, MHA, MHD, NRRD "
            "or PNG file, or a folder of them."
        )
    jobs = [
        Job(
            name=item.name or source.name,
            source=item.path,
            # A series in the input folder itself goes under that folder's name.
            target=output
            / (item.path.relative_to(source) if item.path != source else source.name),
            slices=count_slices(item),
        )
        for item in items
    ]
    for job in jobs:
        if job.target == job.source:
            raise UserError(
                f"{key}: {job.source} would be written upon itself; give another folder"
            )
    targets = [job.target for job in jobs]
    if twice := sorted({str(t) for t in targets if targets.count(t) > 1}):
        raise UserError(
            f"{source}: two volumes would both be written to {twice[0]}; move one."
        )
    return jobs
