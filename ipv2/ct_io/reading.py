"""Reads CT files to volumes in HU, with SimpleITK; the package lists the formats.

A volume is read as a whole, or opened and read slice by slice. The memory for reading
slice by slice:
- DICOM, NIfTI, uncompressed MHA, MHD and NRRD: one slice.
- .nii.gz, compressed MHA and NRRD: one slice. They are first unpacked to a temporary
  file of the volume's stored size, mostly 2 bytes per voxel.
- Compressed MHD, and NRRD with detached data, text, bzip2 or big-endian: the stored
  volume, because ITK reads these only as a whole.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from common.errors import UserError
from ipv2.ct_io import dicom_series
from ipv2.ct_io.dicom_header import is_dicom
from ipv2.ct_io.dicom_padding import pad_low
from ipv2.ct_io.formats import (
    IMAGE_IO,
    SUFFIXES,
    format_of,
    last_line,
    stem_of,
    suffix_of,
)
from ipv2.ct_io.hu_check import check_hu
from ipv2.ct_io.image_header import check_nifti, check_png, states_spacing
from ipv2.ct_io.unpacking import unpack_nifti, value_reader
from ipv2.ct_io.volume import (
    Format,
    ReadOptions,
    Slice,
    SliceSource,
    Volume,
    check_finite,
)

_DEFAULT = ReadOptions()
_ACCEPTED = ".dcm, .nii, .nii.gz, .mha, .mhd, .nrrd, .png, or a folder of DICOM slices"


def read_volume(
    path: str | os.PathLike[str], options: ReadOptions = _DEFAULT
) -> Volume:
    """Reads a CT volume in HU (or grey levels, see `Volume.unit`).

    Args:
      path: a file, or the folder of a DICOM series.
      options: how to read it.

    Returns:
      The volume; padding is at PADDING_HU, all values are finite.

    Raises:
      UserError: The file is missing, damaged, no image, no CT, or a series is
        ambiguous, incomplete or mixed; the message names the file and the remedy.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="ct_io.") as scratch, _as_user_error(path):
        return _checked(path, options, Path(scratch), whole=True).load()


@contextlib.contextmanager
def open_volume(
    path: str | os.PathLike[str], options: ReadOptions = _DEFAULT
) -> Iterator[SliceSource]:
    """Opens a CT volume for reading slice by slice while the context lasts.

    Arguments and errors are those of `read_volume`. Damage in the pixels of a slice
    raises when that slice is read.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="ct_io.") as scratch:
        with _as_user_error(path):
            source = _checked(path, options, Path(scratch), whole=False)

        def read(index: int) -> Slice:
            with _as_user_error(path):
                return source.read(index)

        yield dataclasses.replace(source, read=read)


@contextlib.contextmanager
def _as_user_error(path: Path) -> Iterator[None]:
    """Turns the system's errors for a file into UserError."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder. Give {_ACCEPTED}.") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror or error}."
        ) from error


def _checked(
    path: Path, options: ReadOptions, scratch: Path, *, whole: bool
) -> SliceSource:
    """Opens the volume of a path, applies the options, and checks for HU."""
    window = options.window
    if window is not None and not window[1] > 0:
        raise UserError(
            f"{path}: window must be (centre, width) in HU with width above 0, got "
            f"{window}."
        )
    source = _open(path, options, scratch, whole=whole)
    if not source.spacing_known and options.pixel_mm:
        size = options.pixel_mm
        source = dataclasses.replace(
            source,
            spacing_mm=(source.spacing_mm[0], size, size),
            spacing_known=True,
            spacing_stated=False,
        )
    # The stated window makes the values of a PNG HU.
    if source.unit == "HU" and source.format != "png" and not options.trust_hu:
        check_hu(source)
    return source


def _open(
    path: Path, options: ReadOptions, scratch: Path, *, whole: bool
) -> SliceSource:
    """Opens the volume of a path.

    Args:
      path: the file or folder.
      options: how to read it.
      scratch: an empty folder for unpacked files.
      whole: whether all slices will be read, so that no slice is needed alone.
    """
    if path.is_dir():
        return dicom_series.open_series(path, options, scratch)
    if path.stat().st_size == 0:
        raise UserError(f"{path}: an empty file. Copy it again from its source.")
    kind = format_of(path)
    if kind is None:
        raise UserError(
            f"{path}: not an image of an accepted format. Give {_ACCEPTED}."
        )
    if kind == "dicom":
        if not is_dicom(path):
            raise UserError(f"{path}: named as DICOM, but its content is not DICOM.")
        return dicom_series.open_file(path, options, scratch)
    if kind == "png":
        check_png(path)
        return _open_png(path, options.window)
    return _open_image(path, kind, None if whole else scratch)


def _open_image(path: Path, kind: Format, scratch: Path | None) -> SliceSource:
    """Opens a volume file; with a scratch folder, slices can be read alone."""
    stored, packed = path, not _streams(path, kind)
    if scratch is not None and packed and kind == "nifti":
        stored = unpack_nifti(path, scratch)
    if kind == "nifti":
        check_nifti(stored, name=path)
    header = _read_header(path, stored, IMAGE_IO[kind])
    _check_image(path, header)
    stated = states_spacing(stored, kind)
    read = None
    if scratch is not None and packed and kind in ("nrrd", "mha"):
        read = value_reader(path, kind, header, scratch)
    placed = header
    if read is None:
        read_image = _image_reader(path, stored, kind, header)
        placed = read_image(0)

        def read(index: int) -> np.ndarray:
            return sitk.GetArrayFromImage(read_image(index))[0]

    spacing, origin = placed.GetSpacing(), placed.GetOrigin()
    columns, rows, _ = placed.GetSize()

    def read_slice(index: int) -> Slice:
        hu = read(index).astype(np.float32)
        check_finite(hu, name=str(path))
        return Slice(hu=pad_low(hu), stored=hu)

    return SliceSource(
        shape=((*header.GetSize(), 1)[2], rows, columns),
        read=read_slice,
        spacing_mm=(spacing[2], spacing[1], spacing[0]),
        spacing_known=stated,
        spacing_stated=stated,
        direction=placed.GetDirection(),
        origin_mm=(origin[0], origin[1], origin[2]),
        tags=_tags(header),
        name=stem_of(path),
        format=kind,
        paths=(path,),
        integer=header.GetPixelID() not in (sitk.sitkFloat32, sitk.sitkFloat64),
    )


def _check_image(path: Path, header: sitk.ImageFileReader) -> None:
    """Raises UserError unless a header is that of a volume with one channel."""
    channels = header.GetNumberOfComponents()
    pixel = sitk.GetPixelIDValueAsString(header.GetPixelID())
    if channels != 1 or "complex" in pixel:
        raise UserError(
            f"{path}: {channels} channels per pixel ({pixel}); CT has one grey "
            "channel. Save the image as grey, without colour or alpha."
        )
    size = header.GetSize()
    if len(size) < 2 or any(extent != 1 for extent in size[3:]):
        raise UserError(
            f"{path}: {len(size)}-dimensional, size {size[::-1]}; a CT volume has 2 or "
            "3 dimensions. Save each time point or channel as a file."
        )


def _image_reader(
    path: Path, stored: Path, kind: Format, header: sitk.ImageFileReader
) -> Callable[[int], sitk.Image]:
    """Returns a function that reads a slice as a 3-D image.

    Args:
      path: path for messages.
      stored: the file to read: `path`, or the file unpacked from it.
      kind: format of the file.
      header: reader of `stored`; the returned function uses and changes it.
    """
    size = header.GetSize()
    whole = None if _streams(stored, kind) else _execute(header, path, kind)

    def read(index: int) -> sitk.Image:
        if len(size) == 2:
            return sitk.JoinSeries(whole or _execute(header, path, kind))
        part = [*size[:2], 1, *(0 for _ in size[3:])]  # 0: that axis is dropped
        start = [0, 0, index, *(0 for _ in size[3:])]
        if whole is not None:
            return sitk.Extract(whole, part, start)
        header.SetExtractSize(part)
        header.SetExtractIndex(start)
        return _execute(header, path, kind)

    return read


def _streams(path: Path, kind: Format) -> bool:
    """Returns whether ITK can read parts of the file without reading all of it."""
    if kind == "nifti":
        return suffix_of(path) != ".nii.gz"
    if kind == "nrrd":
        return False
    with path.open("rb") as file:
        header = file.read(4096).lower().replace(b" ", b"")
    return b"compresseddata=true" not in header


def _read_header(path: Path, stored: Path, image_io: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(stored))
    try:
        with _quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, image_io, error) from error
    return reader


def _execute(reader: sitk.ImageFileReader, path: Path, kind: Format) -> sitk.Image:
    try:
        with _quiet_itk():
            return reader.Execute()
    except RuntimeError as error:
        raise _unreadable(path, IMAGE_IO[kind], error) from error


def _tags(image: sitk.ImageFileReader) -> dict[str, str]:
    """Returns a file's tags as text; bytes that are not UTF-8 become U+FFFD."""
    # SimpleITK returns such bytes as lone surrogates, but accepts none, neither in a
    # key nor in a value.
    return {
        key: image.GetMetaData(key)
        .encode("utf_8", "surrogateescape")
        .decode("utf_8", "replace")
        for key in image.GetMetaDataKeys()
        if not any("\ud800" <= letter <= "\udfff" for letter in key)
    }


def peek(path: Path) -> tuple[int, str]:
    """Returns slice count and PatientID ('' if not stated) of a file, not DICOM.

    Reads only the header.

    Raises:
      UserError: The header cannot be read.
    """
    reader = _read_header(path, path, IMAGE_IO[SUFFIXES[suffix_of(path)]])
    size = reader.GetSize()
    has_patient = reader.HasMetaDataKey("0010|0020")
    patient = reader.GetMetaData("0010|0020").strip() if has_patient else ""
    return (size[2] if len(size) > 2 else 1), patient


def _unreadable(path: Path, image_io: str, error: RuntimeError) -> UserError:
    return UserError(
        f"{path}: cannot be read as {image_io.removesuffix('ImageIO')}: "
        f"{last_line(error)}. The file is damaged, truncated, or of another format "
        "than its name states; copy it again from its source."
    )


@contextlib.contextmanager
def _quiet_itk() -> Iterator[None]:
    """Turns ITK's warnings off while a file is read; errors are still raised."""
    was_on = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(was_on)


def _open_png(path: Path, window: tuple[float, float] | None) -> SliceSource:
    reader = _read_header(path, path, IMAGE_IO["png"])
    array = sitk.GetArrayFromImage(_execute(reader, path, "png"))
    bits = array.dtype.itemsize * 8
    grey = array.astype(np.float64)
    if window is not None:
        centre, width = window
        grey = grey / (2**bits - 1) * width + (centre - width / 2)
    hu = grey.astype(np.float32)
    return SliceSource(
        shape=(1, hu.shape[0], hu.shape[1]),
        read=lambda index: Slice(hu=hu, stored=hu),
        spacing_mm=(1.0, 1.0, 1.0),
        spacing_known=False,
        spacing_stated=False,
        positions_known=False,
        tags=_tags(reader),
        unit="grey" if window is None else "HU",
        name=stem_of(path),
        format="png",
        paths=(path,),
        integer=True,
        bits=bits,
        window=window,
    )
