"""Volumes to CT files, whole or not at all; see the package for the formats."""

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
    """Writes a volume; the path's extension says the format.

    Without one of SUFFIXES the path is a folder, and a DICOM series is written to it,
    under the names its slices were read from, else 0001.dcm, 0002.dcm, ...

    HU are exact to 1 (int16), or exact as float32 where `volume.integer` is False and
    the format holds floats. PNG keeps one slice of `volume.bits`: grey levels as they
    are, HU through `volume.window` (clipped to it: PNG cannot hold more), a mask as
    black and white. A mask is uint8 in NIfTI, MHA, MHD, NRRD.

    The files appear at once, complete, or not at all: they are written to a temporary
    sibling first and renamed.

    Args:
      volume: what to write.
      path: where to. Its folder is made if need be.
      format: in place of what the path's extension says; 'dicom-series' for a folder
        that is called 'scan.nii', say.
      overwrite: whether what is there may be replaced.
      multi_frame: whether a DICOM series is written as one multi-frame file in its
        folder, a Legacy Converted Enhanced CT, in place of a file a slice.
      series_description: for DICOM; by default the input's and ' (derived)'.
      derivation_description: for DICOM: what was done to the image.

    Returns:
      The path.

    Raises:
      UserError: something is there already, or the format cannot hold the volume.
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
    """A function that writes the slices of a volume, one after the other.

    Everything else is as `write_volume` says: the files appear when the context ends,
    and if it ends with an error, not at all.

    Args:
      grid: of the volume; `format` and `paths` name the slices of a series.
      shape: (slices, rows, columns).
      path: as for `write_volume`, as are the rest.
      format: as there.
      overwrite: as there.
      multi_frame: as there.
      series_description: as there.
      derivation_description: as there.

    Yields:
      `write(hu, header)`: takes a slice (rows, columns) and the DICOM header of the
      slice that it was made of, None if there is none.

    Raises:
      UserError: as there.
      ValueError: fewer or more slices were written than `shape` says, or of another
        size.
    """
    path = Path(path)
    kind = format or SUFFIXES.get(suffix_of(path), "dicom-series")
    _check_format(grid, shape, path, kind)
    for file in output_files(path, kind):
        if file.exists() or file.is_symlink():
            _check_replaceable(file, kind, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    described = series_description or f"{grid.description} (derived)"
    written = 0
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing.") as name:
        # TemporaryDirectory is private to its owner; what is inside follows the umask.
        staging = Path(name) / "new"
        staging.mkdir()
        with contextlib.ExitStack() as stack:
            if kind in ("dicom", "dicom-series"):
                put = SeriesWriter(
                    grid,
                    staging,
                    [path.name] if kind == "dicom" else _slice_names(grid, shape[0]),
                    series_description=described.strip(),
                    derivation_description=derivation_description,
                ).write
            else:
                put = stack.enter_context(
                    image_writer(grid, shape, staging / _plain_name(path), kind)
                )

            def write(hu: np.ndarray, header: Dataset | None) -> None:
                nonlocal written
                if written == shape[0] or hu.shape != shape[1:]:
                    raise ValueError(
                        f"{path}: slice {written} of shape {hu.shape} for a volume of "
                        f"{shape}"
                    )
                put(written, hu, header)
                written += 1

            yield write
        if written != shape[0]:
            raise ValueError(f"{path}: {written} of {shape[0]} slices were written")
        if kind == "dicom-series":
            _replace_folder(_joined(staging, grid) if multi_frame else staging, path)
        else:
            # The header that names the data (MHD) last: it never points at old data.
            for file in reversed(output_files(path, kind)):
                staged = staging / (_plain_name(path) if file == path else file.name)
                os.replace(staged, file)


def _joined(slices: Path, grid: Grid) -> Path:
    """A folder beside that of the slices, with one file of them all, in their order."""
    folder = slices.with_name("joined")
    folder.mkdir()
    names = _slice_names(grid, len(list(slices.iterdir())))
    source = "" if grid.header is None else text_of(grid.header, "SeriesInstanceUID")
    join_slices(
        [slices / name for name in names], folder / _FRAMES, source_series=source
    )
    return folder


def output_files(path: Path, kind: Format) -> tuple[Path, ...]:
    """The files, or the folder, that a volume is written to: its path first."""
    if kind == "mhd":
        return path, path.with_name(f"{stem_of(path)}.raw")
    return (path,)


def _plain_name(path: Path) -> str:
    """A file's name with its extension in small letters, which SimpleITK wants."""
    return stem_of(path) + suffix_of(path)


def _check_format(
    grid: Grid, shape: tuple[int, int, int], path: Path, kind: Format
) -> None:
    """Raises UserError unless a format holds a volume of this unit and size."""
    count = shape[0]
    if kind not in ("dicom", "dicom-series") and SUFFIXES.get(suffix_of(path)) != kind:
        raise UserError(
            f"{path}: SimpleITK writes {kind} under its own extension only; name the "
            "file so, or leave `format` out."
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
    """Puts a folder in place of another, or of nothing."""
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
    """The volume with other values on the same grid, for writing results back."""
    values = np.asarray(hu, np.float32)
    if values.shape != volume.hu.shape:
        raise ValueError(
            f"{volume.name}: new values have shape {values.shape}, the volume's is "
            f"{volume.hu.shape}."
        )
    return dataclasses.replace(volume, hu=values)
