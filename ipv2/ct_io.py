"""CT files to HU and back, on SimpleITK.

    volume = read_volume("scan/")              # a DICOM series; or scan.nii.gz, ...
    write_volume(volume, "copy.nii.gz")        # the extension says which format

| input                     | notes                                                   |
|---------------------------|---------------------------------------------------------|
| folder of a DICOM series  | see `dicom_series`; any file names, compressed or not   |
| .dcm, or no extension     | a single DICOM slice                                    |
| .nii .nii.gz .mha .mhd    | integer or float, in HU; 2-D or 3-D                     |
| .nrrd                     | likewise                                                |
| .png                      | 8 or 16 bits of grey; HU if the window it was made with |
|                           | is stated, else `Volume.unit` is 'grey'; no spacing     |

What lies outside the field of view (-2000, -3024, PixelPaddingValue) becomes -1024 HU.
What is wrong with a file is a `common.errors.UserError` that names it.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from absl import logging

from common.errors import UserError
from ipv2 import dicom_series
from ipv2.dicom_header import is_dicom
from ipv2.dicom_write import write_slices
from ipv2.image_header import check_nifti, check_png
from ipv2.volume import (
    PADDING_HU,
    Format,
    Volume,
    check_finite,
    hu_to_int16,
)

__all__ = [
    "PADDING_HU",
    "SUFFIXES",
    "Volume",
    "format_of",
    "hu_to_int16",
    "peek",
    "read_volume",
    "stem_of",
    "suffix_of",
    "with_hu",
    "write_volume",
]

SUFFIXES: dict[str, Format] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".mha": "mha",
    ".mhd": "mhd",
    ".nrrd": "nrrd",
    ".png": "png",
    ".dcm": "dicom",
    ".ima": "dicom",
}
"""File extensions read and written, and what they stand for."""

_ACCEPTED = ".dcm, .nii, .nii.gz, .mha, .mhd, .nrrd, .png, or a folder of DICOM slices"
_IMAGE_IO = {
    "nifti": "NiftiImageIO",
    "mha": "MetaImageIO",
    "mhd": "MetaImageIO",
    "nrrd": "NrrdImageIO",
    "png": "PNGImageIO",
}


def suffix_of(path: Path) -> str:
    """The extension that says the format, '' if it is none of SUFFIXES."""
    name = path.name.lower()
    return next((s for s in SUFFIXES if name.endswith(s)), "")


def stem_of(path: Path) -> str:
    """The name without the extension that says the format: 'a.1' of 'a.1.nii.gz'."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def format_of(path: Path) -> Format | None:
    """The format of a file, by its extension or as DICOM by its content; else None."""
    if suffix := suffix_of(path):
        return SUFFIXES[suffix]
    return "dicom" if is_dicom(path) else None


def read_volume(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    window: tuple[float, float] | None = None,
) -> Volume:
    """A CT volume in HU (or grey levels, see `Volume.unit`).

    Args:
      path: a file, or the folder of a DICOM series.
      series: for a folder with several series: the SeriesInstanceUID, or what it or
        the SeriesDescription begins with. Other inputs have no series.
      window: for PNG: (centre, width) in HU of the window it was made with. Black is
        centre - width/2, white centre + width/2. Other inputs are in HU already.

    Returns:
      The volume; padding is at PADDING_HU, all values are finite.

    Raises:
      UserError: the file is missing, damaged, no image, no CT, or a series is
        ambiguous, incomplete or mixed; the message says which file and what to do.
    """
    path = Path(path)
    if window is not None and not window[1] > 0:
        raise UserError(
            f"{path}: window is (centre, width) in HU with width above 0, got {window}."
        )
    try:
        if path.is_dir():
            volume = dicom_series.read_series(path, series=series)
        else:
            volume = _read_file(path, window)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder. Give {_ACCEPTED}.") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror or error}."
        ) from error
    check_finite(volume.hu, name=str(path))
    return volume


def _read_file(path: Path, window: tuple[float, float] | None) -> Volume:
    if path.stat().st_size == 0:
        raise UserError(f"{path}: an empty file. Copy it again from its source.")
    kind = format_of(path)
    if kind is None:
        raise UserError(f"{path}: not an image this reads. Give {_ACCEPTED}.")
    if kind == "dicom":
        if not is_dicom(path):
            raise UserError(f"{path}: named as DICOM, but its content is not DICOM.")
        return dicom_series.read_slice(path)
    if kind == "nifti":
        check_nifti(path)
    if kind == "png":
        check_png(path)
    image = _read_image(path, _IMAGE_IO[kind])
    integer = image.GetPixelID() not in (sitk.sitkFloat32, sitk.sitkFloat64)
    array = sitk.GetArrayFromImage(image)
    size = array.shape
    tags = _tags(image)
    if kind == "png":
        return _grey(path, array, tags, window)
    while array.ndim > 3 and array.shape[0] == 1:
        array, image = array[0], image[..., 0]
    if array.ndim == 2:
        array, image = array[None], sitk.JoinSeries(image)
    if array.ndim != 3:
        raise UserError(
            f"{path}: {len(size)}-dimensional, size {size}; a CT volume has 2 or 3 "
            "dimensions. Save one time point or channel a file."
        )
    if array.min() >= 0 and array.max() > 1:
        logging.warning(
            "%s: no value below 0, so no air: values from %g to %g are taken as HU, "
            "but look like HU + 1024",
            *(path, array.min(), array.max()),
        )
    spacing = image.GetSpacing()
    origin = image.GetOrigin()
    return Volume(
        hu=dicom_series.pad_low(array.astype(np.float32)),
        spacing_mm=(spacing[2], spacing[1], spacing[0]),
        direction=image.GetDirection(),
        origin_mm=(origin[0], origin[1], origin[2]),
        tags=tags,
        name=stem_of(path),
        format=kind,
        paths=(path,),
        integer=integer,
    )


def _read_image(path: Path, image_io: str) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        with _quiet_itk():
            image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(path, image_io, error) from error
    channels = image.GetNumberOfComponentsPerPixel()
    if channels != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise UserError(
            f"{path}: {channels} channels a pixel ({image.GetPixelIDTypeAsString()}); "
            "CT has one grey channel. Save it as grey, without colour or alpha."
        )
    return image


def _tags(image: sitk.Image) -> dict[str, str]:
    """An image's tags as text; bytes that are not UTF-8 become U+FFFD."""
    # SimpleITK hands such bytes out as lone surrogates, and takes none back: neither to
    # look up a key, nor to write a value.
    return {
        key: image.GetMetaData(key)
        .encode("utf_8", "surrogateescape")
        .decode("utf_8", "replace")
        for key in image.GetMetaDataKeys()
        if not any("\ud800" <= letter <= "\udfff" for letter in key)
    }


def peek(path: Path) -> tuple[int, str]:
    """Slices and PatientID ('' if not stated) of an image file, not DICOM.

    Reads the header only.

    Raises:
      UserError: the header cannot be read.
    """
    image_io = _IMAGE_IO[SUFFIXES[suffix_of(path)]]
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        with _quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, image_io, error) from error
    size = reader.GetSize()
    has_patient = reader.HasMetaDataKey("0010|0020")
    patient = reader.GetMetaData("0010|0020").strip() if has_patient else ""
    return (size[2] if len(size) > 2 else 1), patient


def _unreadable(path: Path, image_io: str, error: RuntimeError) -> UserError:
    return UserError(
        f"{path}: cannot be read as {image_io.removesuffix('ImageIO')}: "
        f"{dicom_series.reason(error)}. It is damaged, truncated, or of another kind "
        "than its name says; copy it again from its source."
    )


@contextlib.contextmanager
def _quiet_itk() -> Iterator[None]:
    """ITK's warnings off while a file is read; its errors are raised all the same."""
    was_on = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(was_on)


def _grey(
    path: Path,
    array: np.ndarray,
    tags: dict[str, str],
    window: tuple[float, float] | None,
) -> Volume:
    bits = array.dtype.itemsize * 8
    grey = array.astype(np.float64)[None]
    if window is not None:
        centre, width = window
        grey = grey / (2**bits - 1) * width + (centre - width / 2)
    return Volume(
        hu=grey.astype(np.float32),
        spacing_mm=(1.0, 1.0, 1.0),
        spacing_known=False,
        tags=tags,
        unit="grey" if window is None else "HU",
        name=stem_of(path),
        format="png",
        paths=(path,),
        integer=True,
        bits=bits,
        window=window,
    )


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
    writer.SetImageIO(_IMAGE_IO[kind])
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
