"""CT files to volumes in HU, on SimpleITK; see the package for what can be read."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from absl import logging

from common.errors import UserError
from ipv2.ct_io import dicom_series
from ipv2.ct_io.dicom_header import is_dicom
from ipv2.ct_io.formats import IMAGE_IO, SUFFIXES, format_of, stem_of, suffix_of
from ipv2.ct_io.image_header import check_nifti, check_png
from ipv2.ct_io.volume import Volume, check_finite

_ACCEPTED = ".dcm, .nii, .nii.gz, .mha, .mhd, .nrrd, .png, or a folder of DICOM slices"


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
    image = _read_image(path, IMAGE_IO[kind])
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
    image_io = IMAGE_IO[SUFFIXES[suffix_of(path)]]
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
