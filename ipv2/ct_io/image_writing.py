"""Slices to NIfTI, MHA, MHD, NRRD and PNG files, one after the other.

SimpleITK writes whole images only. Here it writes the header, of an image of the first
one or two slices, in which the number of slices is then set; the values follow as they
come. The file is, byte by byte, what SimpleITK makes of the whole volume.
"""

import contextlib
import errno
import gzip
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from common.errors import UserError
from ipv2.ct_io.formats import IMAGE_IO, last_line
from ipv2.ct_io.volume import Format, Grid, check_finite, hu_to_int16

_COUNT = {
    "mha": rb"(?m)^(DimSize = \d+ \d+ )\d+$",
    "mhd": rb"(?m)^(DimSize = \d+ \d+ )\d+$",
    "nrrd": rb"(?m)^(sizes: \d+ \d+ )\d+$",
}
# The lines that state distances; of NRRD, those that need them.
_SPACING = {
    "mha": rb"(?m)^Element(Spacing|Size) = .*\n",
    "mhd": rb"(?m)^Element(Spacing|Size) = .*\n",
    "nrrd": rb"(?m)^space( directions| origin)?: .*\n",
}
# Of `pixdim[1]`, and of `qform_code` and `sform_code`.
_NIFTI_SIZES, _NIFTI_FORMS = 80, 252
# Of the third of the eight int16 of `dim`, the first of which is at byte 40.
_NIFTI_COUNT = 46


@contextlib.contextmanager
def image_writer(
    grid: Grid, shape: tuple[int, int, int], path: Path, kind: Format
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that takes the slices (rows, columns) of a volume, in their order.

    Args:
      grid: of the volume; its values are written as int16 if `integer` holds, a mask
        as uint8, others as float32.
      shape: (slices, rows, columns).
      path: of the file; nothing is there.
      kind: its format, not DICOM.

    Raises:
      UserError: the format cannot hold the values.
    """
    if kind == "png":
        yield lambda hu: _write_png(grid, hu, path)
        return
    header = _write_header(grid, shape, path, kind)
    data = path.with_suffix(".raw") if kind == "mhd" else path
    packed = path.name.lower().endswith(".gz")
    with gzip.open(data, "wb", 6) if packed else data.open("wb") as file:
        file.write(header)

        def write(hu: np.ndarray) -> None:
            file.write(_stored(grid, hu).tobytes())

        yield write


def _write_header(
    grid: Grid, shape: tuple[int, int, int], path: Path, kind: Format
) -> bytes:
    """What goes before the values; writes the header of MHD, which is its own file."""
    few = np.zeros((min(shape[0], 2), *shape[1:]), np.float32)
    image = sitk.GetImageFromArray(_stored(grid, few))
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    if grid.format == kind:
        _set_tags(image, grid.tags, kind)
    header = header_of(image, shape[0], path, kind)
    if not grid.spacing_stated:
        header = _without_spacing(header, kind)
    if kind == "mhd":
        path.write_bytes(header)
        return b""
    return header


def header_of(image: sitk.Image, count: int, path: Path, kind: Format) -> bytes:
    """The header of an image's file, as if it had `count` slices.

    Args:
      image: of the first one or two slices, as many as there are.
      count: of slices.
      path: of the file, which MHD's header names; nothing is there, nor will be.
      kind: its format, not PNG.
    """
    unpacked = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    _write(image, unpacked, kind)
    content = unpacked.read_bytes()
    unpacked.unlink()
    values = sitk.GetArrayViewFromImage(image).tobytes()
    data = content
    if kind == "mhd":
        raw = path.with_suffix(".raw")
        data = raw.read_bytes()
        raw.unlink()
    if not data.endswith(values):
        # SimpleITK tells of a full disk on the console alone.
        raise OSError(errno.ENOSPC, f"{path.name} cannot be written whole")
    if kind == "mhd":
        return _with_count(content, kind, count)
    return _with_count(content[: -len(values)], kind, count)


def _without_spacing(header: bytes, kind: Format) -> bytes:
    """A header that does not state the distances between voxels."""
    if kind == "nifti":
        changed = bytearray(header)
        struct.pack_into("=3f", changed, _NIFTI_SIZES, 0.0, 0.0, 0.0)
        # Neither form: both would state the distances too.
        struct.pack_into("=2h", changed, _NIFTI_FORMS, 0, 0)
        return bytes(changed)
    return re.sub(_SPACING[kind], b"", header)


def _set_tags(image: sitk.Image, tags: Mapping[str, str], kind: Format) -> None:
    for key, value in tags.items():
        # Keys with a prefix are the format's own, set from the geometry.
        if not key.startswith(("NRRD_", "ITK_")) and kind != "nifti":
            image.SetMetaData(key, value)


def _with_count(header: bytes, kind: Format, count: int) -> bytes:
    if kind == "nifti":
        most = np.iinfo(np.int16).max
        if count > most:
            raise UserError(f"NIfTI holds {most} slices, not {count}; write MHA.")
        changed = bytearray(header)
        struct.pack_into("=h", changed, _NIFTI_COUNT, count)
        return bytes(changed)
    header, times = re.subn(_COUNT[kind], rb"\g<1>%d" % count, header)
    if times != 1:
        raise RuntimeError(f"SimpleITK wrote a {kind} header without sizes")
    return header


def _write_png(grid: Grid, hu: np.ndarray, path: Path) -> None:
    check_finite(hu, name=grid.name)
    white = 2**grid.bits - 1
    grey = hu.astype(np.float64)
    if grid.unit == "mask":
        grey = grey * white
    elif grid.unit == "HU":
        if grid.window is None:
            raise UserError(
                f"{grid.name}: HU become PNG through a window; state its centre and "
                "width in HU (`window`), or write NIfTI, MHA, NRRD or DICOM."
            )
        centre, width = grid.window
        grey = (grey - (centre - width / 2)) / width * white
    dtype = np.uint8 if grid.bits == 8 else np.uint16
    stored = np.rint(np.clip(grey, 0, white)).astype(dtype)
    _write(sitk.GetImageFromArray(stored), path, "png")


def _stored(grid: Grid, hu: np.ndarray) -> np.ndarray:
    if grid.unit == "mask":
        return hu.astype(np.uint8)
    return hu_to_int16(hu, name=grid.name) if grid.integer else hu.astype(np.float32)


def _write(image: sitk.Image, path: Path, kind: Format) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetImageIO(IMAGE_IO[kind])
    writer.SetFileName(str(path))
    try:
        writer.Execute(image)
    except RuntimeError as error:  # SimpleITK's word for a full disk, say
        raise OSError(
            f"{path.name}: SimpleITK cannot write it: {last_line(error)}"
        ) from error
