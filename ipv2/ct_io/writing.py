"""Writes volumes to CT files, complete or not at all; the package lists formats."""

import contextlib
import dataclasses
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from pydicom import Dataset

from common.errors import UserError
from ipv2.ct_io.dicom_header import is_dicom, text_of
from ipv2.ct_io.dicom_writing import SeriesWriter
from ipv2.ct_io.formats import SUFFIXES, stem_of, suffix_of
from ipv2.ct_io.frame_joining import join_slices
from ipv2.ct_io.image_writing import image_writer
from ipv2.ct_io.volume import Format, Grid, Volume

_FRAMES = "frames.dcm"


def write_volume(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    overwrite: bool = False,
    multi_frame: bool = False,
    series_description: str | None = None,
    derivation_description: str = "",
) -> Path:
    """Writes a volume; the path's extension selects the format.

    A path without one of SUFFIXES is a folder for a DICOM series. Its files get the
    names from which the slices were read, else 0001.dcm, 0002.dcm, ...

    HU are exact to 1 (int16), or exact as float32 if `volume.integer` is False and the
    format holds floats. PNG holds one slice with `volume.bits`: unchanged grey levels,
    HU through `volume.window` (and clipped to it), or a mask in black and white. A mask
    is uint8 in NIfTI, MHA, MHD, NRRD.

    The files appear at once and complete, or not at all: they are first written to a
    temporary sibling and then renamed.

    Args:
      volume: the volume.
      path: path of the output. Its folder is created if needed.
      format: replaces the format of the path's extension; 'dicom-series' for a folder
        with the name 'scan.nii', for example.
      overwrite: whether existing files may be replaced.
      multi_frame: whether a DICOM series is written as one multi-frame file in its
        folder, a Legacy Converted Enhanced CT, instead of one file per slice.
      series_description: for DICOM; by default the input's with ' (derived)'.
      derivation_description: for DICOM: the processing of the image.

    Returns:
      The path.

    Raises:
      UserError: A file exists already, or the format cannot hold the volume.
    """
    with slice_writer(
        volume,
        volume.shape,
        path,
        format=format,
        overwrite=overwrite,
        multi_frame=multi_frame,
        series_description=series_description,
        derivation_description=derivation_description,
    ) as write:
        for hu, header in itertools.zip_longest(volume.hu, volume.headers):
            write(hu, header)
    return Path(path)


Write: TypeAlias = Callable[[np.ndarray, Dataset | None], None]


@contextlib.contextmanager
def slice_writer(
    grid: Grid,
    shape: tuple[int, int, int],
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    overwrite: bool = False,
    multi_frame: bool = False,
    series_description: str | None = None,
    derivation_description: str = "",
) -> Iterator[Write]:
    """Yields a function that writes the slices of a volume, one after the other.

    The files appear when the context ends. If it ends with an error, no file appears.

    Args:
      grid: grid of the volume; `format` and `paths` name the slices of a series.
      shape: (slices, rows, columns).
      path: see `write_volume`, also for the other arguments.
      format: see `write_volume`.
      overwrite: see `write_volume`.
      multi_frame: see `write_volume`.
      series_description: see `write_volume`.
      derivation_description: see `write_volume`.

    Yields:
      `write(hu, header)`: takes a slice (rows, columns) and the DICOM header of its
      source slice, or None.

    Raises:
      UserError: See `write_volume`.
      ValueError: The slices written differ from `shape` in number or size.
    """
    path = Path(path)
    kind = format or SUFFIXES.get(suffix_of(path), "dicom-series")
    _check_format(grid, shape, path, kind)
    for file in output_files(path, kind):
        if file.exists() or file.is_symlink():
            _check_replaceable(file, kind, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing.") as name:
        # TemporaryDirectory is private to its owner; folders in it follow the umask.
        staging = Path(name) / "new"
        staging.mkdir()
        if kind in ("dicom", "dicom-series"):
            description = series_description or f"{grid.description} (derived)"
            names = [path.name] if kind == "dicom" else _slice_names(grid, shape[0])
            series = SeriesWriter(
                grid,
                staging,
                names,
                series_description=description.strip(),
                derivation_description=derivation_description,
            )
            opened = contextlib.nullcontext(series.write)
        else:
            opened = image_writer(grid, shape, staging / _plain_name(path), kind)
        with opened as put, _counted(put, shape, path) as write:
            yield write
        _publish(staging, grid, path, kind, multi_frame=multi_frame)


@contextlib.contextmanager
def _counted(
    put: Callable[[int, np.ndarray, Dataset | None], None],
    shape: tuple[int, int, int],
    path: Path,
) -> Iterator[Write]:
    """Yields a function that numbers slices for `put` and checks them by `shape`."""
    written = 0

    def write(hu: np.ndarray, header: Dataset | None) -> None:
        nonlocal written
        if written == shape[0] or hu.shape != shape[1:]:
            raise ValueError(
                f"{path}: slice {written} of shape {hu.shape} for a volume of {shape}"
            )
        put(written, hu, header)
        written += 1

    yield write
    if written != shape[0]:
        raise ValueError(f"{path}: {written} of {shape[0]} slices were written")


def _publish(
    staging: Path, grid: Grid, path: Path, kind: Format, *, multi_frame: bool
) -> None:
    """Moves complete files from the staging folder to their place."""
    if kind == "dicom-series":
        _replace_folder(_joined(staging, grid) if multi_frame else staging, path)
        return
    # MHD: the header that names the data comes last, so it never names old data.
    for file in reversed(output_files(path, kind)):
        os.replace(staging / (_plain_name(path) if file == path else file.name), file)


def _joined(slices: Path, grid: Grid) -> Path:
    """Joins the slices, in order, to one file in a new folder beside theirs."""
    folder = slices.with_name("joined")
    folder.mkdir()
    names = _slice_names(grid, len(list(slices.iterdir())))
    source = "" if grid.header is None else text_of(grid.header, "SeriesInstanceUID")
    join_slices(
        [slices / name for name in names], folder / _FRAMES, source_series=source
    )
    return folder


def output_files(path: Path, kind: Format) -> tuple[Path, ...]:
    """Returns the files, or the folder, of a volume's output; `path` is the first."""
    if kind == "mhd":
        return path, path.with_name(f"{stem_of(path)}.raw")
    return (path,)


def _plain_name(path: Path) -> str:
    """Returns a file's name with its extension in small letters, for SimpleITK."""
    return stem_of(path) + suffix_of(path)


def _check_format(
    grid: Grid, shape: tuple[int, int, int], path: Path, kind: Format
) -> None:
    """Raises UserError unless a format holds a volume of this unit and size."""
    count = shape[0]
    if kind not in ("dicom", "dicom-series") and SUFFIXES.get(suffix_of(path)) != kind:
        raise UserError(
            f"{path}: SimpleITK writes {kind} only under that format's extension; "
            "rename the file, or leave `format` out."
        )
    if kind == "png" and count != 1:
        raise UserError(
            f"{path}: a PNG holds one slice, {grid.name} has {count}. Write NIfTI, "
            "MHA, NRRD or a DICOM folder."
        )
    if kind in ("dicom", "dicom-series") and grid.unit == "grey":
        grid.require_hu()
    if kind == "dicom" and count != 1:
        raise UserError(
            f"{path}: a single DICOM file holds one slice, {grid.name} has {count}. "
            "Give a folder, without an extension."
        )


def _check_replaceable(path: Path, kind: Format, overwrite: bool) -> None:
    if not overwrite:
        raise UserError(
            f"{path}: exists already. Remove it, give another output, or allow "
            "overwriting."
        )
    if (kind == "dicom-series") != path.is_dir():
        raise UserError(
            f"{path}: a {'folder' if path.is_dir() else 'file'} is in the way. Remove "
            "it, or give another output."
        )
    if kind == "dicom-series":
        strange = [p for p in path.iterdir() if p.is_dir() or not is_dicom(p)]
        if strange:
            raise UserError(
                f"{path}: not replaced, since it holds more than DICOM slices: "
                f"{strange[0].name}. Remove it yourself, or give another output."
            )


def _slice_names(grid: Grid, count: int) -> list[str]:
    names = [path.name for path in grid.paths]
    if grid.format == "dicom-series" and len(set(names)) == count:
        return names
    return [f"{index + 1:04d}.dcm" for index in range(count)]


def _replace_folder(new: Path, path: Path) -> None:
    """Moves a folder to a path, replacing a folder there."""
    old = new.parent / "old"
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise


def with_hu(volume: Volume, hu: Any) -> Volume:
    """Returns the volume with other values on the same grid."""
    values = np.asarray(hu, np.float32)
    if values.shape != volume.hu.shape:
        raise ValueError(
            f"{volume.name}: new values have shape {values.shape}, the volume's is "
            f"{volume.hu.shape}."
        )
    return dataclasses.replace(volume, hu=values)
