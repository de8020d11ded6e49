"""Volumes to CT files, whole or not at all; see the package for the formats."""

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from common.errors import UserError
from ipv2.ct_io.dicom_header import is_dicom
from ipv2.ct_io.dicom_writing import write_slices
from ipv2.ct_io.formats import IMAGE_IO, SUFFIXES, suffix_of
from ipv2.ct_io.volume import Format, Volume, check_finite, hu_to_int16


def write_volume(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    overwrite: bool = False,
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
      series_description: for DICOM; by default the input's and ' (derived)'.
      derivation_description: for DICOM: what was done to the image.

    Returns:
      The path.

    Raises:
      UserError: something is there already, or the format cannot hold the volume.
    """
    path = Path(path)
    kind = format or SUFFIXES.get(suffix_of(path), "dicom-series")
    if kind not in ("dicom", "dicom-series") and SUFFIXES.get(suffix_of(path)) != kind:
        raise UserError(
            f"{path}: SimpleITK writes {kind} under its own extension only; name the "
            "file so, or leave `format` out."
        )
    if kind == "png" and volume.hu.shape[0] != 1:
        raise UserError(
            f"{path}: a PNG holds one slice, {volume.name} has {len(volume.hu)}. Write "
            "NIfTI, MHA, NRRD or a DICOM folder."
        )
    if kind in ("dicom", "dicom-series") and volume.unit == "grey":
        volume.require_hu()
    if kind == "dicom" and volume.hu.shape[0] != 1:
        raise UserError(
            f"{path}: a single DICOM file holds one slice, {volume.name} has "
            f"{len(volume.hu)}. Give a folder, without an extension."
        )
    if path.exists():
        _check_replaceable(path, kind, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    described = series_description or (
        volume.tags.get("0008|103e", "").strip() + " (derived)"
    )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        # TemporaryDirectory is private to its owner; what is inside follows the umask.
        staging = Path(name) / "new"
        staging.mkdir()
        if kind in ("dicom", "dicom-series"):
            write_slices(
                volume,
                staging,
                [path.name] if kind == "dicom" else _slice_names(volume),
                series_description=described.strip(),
                derivation_description=derivation_description,
            )
        else:
            _write_image(volume, staging / path.name, kind)
        if kind == "dicom-series":
            _replace_folder(staging, path)
        else:
            # The header that names the data (MHD) last: it never points at old data.
            for file in sorted(staging.iterdir(), key=lambda p: p.name == path.name):
                os.replace(file, path.parent / file.name)
    return path


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


def _slice_names(volume: Volume) -> list[str]:
    names = [path.name for path in volume.paths]
    if volume.format == "dicom-series" and len(set(names)) == len(volume.hu):
        return names
    return [f"{index + 1:04d}.dcm" for index in range(len(volume.hu))]


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


def _write_image(volume: Volume, path: Path, kind: Format) -> None:
    image = sitk.GetImageFromArray(_stored(volume, kind))
    if kind == "png":
        image = image[:, :, 0]
    else:
        image.SetSpacing(volume.spacing_mm[::-1])
        image.SetOrigin(volume.origin_mm)
        image.SetDirection(volume.direction)
        if volume.format == kind:
            for key, value in volume.tags.items():
                # Keys with a prefix are the format's own, set from the geometry.
                if not key.startswith(("NRRD_", "ITK_")) and kind != "nifti":
                    image.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO(IMAGE_IO[kind])
    writer.SetFileName(str(path))
    writer.Execute(image)


def _stored(volume: Volume, kind: Format) -> np.ndarray:
    if kind != "png":
        if volume.unit == "mask":
            return volume.hu.astype(np.uint8)
        return hu_to_int16(volume.hu, name=volume.name) if volume.integer else volume.hu
    check_finite(volume.hu, name=volume.name)
    white = 2**volume.bits - 1
    grey = volume.hu.astype(np.float64)
    if volume.unit == "mask":
        grey = grey * white
    elif volume.unit == "HU":
        if volume.window is None:
            raise UserError(
                f"{volume.name}: HU become PNG through a window; state its centre and "
                "width in HU (`window`), or write NIfTI, MHA, NRRD or DICOM."
            )
        centre, width = volume.window
        grey = (grey - (centre - width / 2)) / width * white
    dtype = np.uint8 if volume.bits == 8 else np.uint16
    return np.rint(np.clip(grey, 0, white)).astype(dtype)


def with_hu(volume: Volume, hu: Any) -> Volume:
    """The volume with other values on the same grid, for writing results back."""
    values = np.asarray(hu, np.float32)
    if values.shape != volume.hu.shape:
        raise ValueError(
            f"{volume.name}: new values have shape {values.shape}, the volume's is "
            f"{volume.hu.shape}."
        )
    return dataclasses.replace(volume, hu=values)
