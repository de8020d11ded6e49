"""Reads parts of files that ITK only reads as a whole.

ITK can read parts of uncompressed NIfTI and MHA. A .nii.gz is unpacked to a file; so
are the values of a compressed NRRD or MHA. This happens in blocks, so memory never
holds all values. The values of an uncompressed NRRD are read in place.
"""

import gzip
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import SimpleITK as sitk

from common.errors import UserError
from ipv2.ct_io.image_header import damage_as_user_error, text_fields
from ipv2.ct_io.volume import Format

_BLOCK = 1 << 20
# zlib's code for either header, gzip or zlib.
_ANY_HEADER = 47


def unpack_nifti(path: Path, folder: Path) -> Path:
    """Unpacks a .nii.gz to a file in `folder`, and returns its path.

    Raises:
      UserError: The file is damaged.
      OSError: The file cannot be read at all, or the disk is full.
    """
    unpacked = folder / "unpacked.nii"
    with (
        damage_as_user_error(path),
        gzip.open(path) as packed,
        unpacked.open("wb") as file,
    ):
        shutil.copyfileobj(packed, file, _BLOCK)
    return unpacked


def value_reader(
    path: Path, kind: Format, header: sitk.ImageFileReader, folder: Path
) -> Callable[[int], np.ndarray] | None:
    """Returns a function that reads the values (rows, columns) of a NRRD or MHA slice.

    Args:
      path: the file.
      kind: 'nrrd' or 'mha'.
      header: SimpleITK's header of a volume with one channel.
      folder: folder for the values, if they must be unpacked.

    Returns:
      The reader; None for encodings that only ITK reads: values in other files, as
      text, in bzip2, big-endian, or not in three dimensions.

    Raises:
      UserError: The file is damaged.
      OSError: The file cannot be read at all, or the disk is full.
    """
    found = _find_nrrd(path) if kind == "nrrd" else _find_mha(path)
    if found is None or header.GetDimension() != 3:
        return None
    start, is_packed = found
    stored = path
    if is_packed:
        stored = folder / "unpacked.raw"
        with (
            damage_as_user_error(path),
            path.open("rb") as packed,
            stored.open("wb") as file,
        ):
            packed.seek(start)
            file.writelines(_inflated(packed))
        start = 0
    columns, rows, slices = header.GetSize()
    dtype = sitk.GetArrayFromImage(sitk.Image([1, 1], header.GetPixelID())).dtype
    size = rows * columns * dtype.itemsize
    if (there := stored.stat().st_size - start) < slices * size:
        raise UserError(
            f"{path}: truncated: {there} bytes of values where {slices * size} are "
            "needed. Copy it again from its source."
        )

    def read(index: int) -> np.ndarray:
        place = start + index * size
        values = np.fromfile(stored, dtype, rows * columns, offset=place)
        return values.reshape(rows, columns)

    return read


def _find_nrrd(path: Path) -> tuple[int, bool] | None:
    """Returns the values' offset and whether they are compressed; None if unknown."""
    fields, offset = text_fields(path, "nrrd")
    elsewhere = {"data file", "datafile", "line skip", "byte skip", "lineskip"}
    little = fields.get("endian", "little").lower() == "little"
    encoding = fields.get("encoding", "").lower()
    if elsewhere & fields.keys() or "byteskip" in fields or not little:
        return None
    if encoding not in ("raw", "gzip", "gz"):
        return None
    return offset, encoding != "raw"


def _find_mha(path: Path) -> tuple[int, bool] | None:
    """Does the same as `_find_nrrd` for MHA."""
    fields, offset = text_fields(path, "mha")
    high_first = {
        fields.get(key, "false").lower()
        for key in ("binarydatabyteordermsb", "elementbyteordermsb")
    }
    local = fields.get("elementdatafile", "").lower() == "local"
    if not local or high_first != {"false"} or "headersize" in fields:
        return None
    return offset, fields.get("compresseddata", "").lower() == "true"


def _inflated(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the unpacked rest of a file; raises EOFError if it ends too early."""
    stream = zlib.decompressobj(_ANY_HEADER)
    while block := file.read(_BLOCK):
        while block and not stream.eof:
            yield stream.decompress(block, _BLOCK)
            block = stream.unconsumed_tail
        if stream.eof:
            return
    yield stream.flush()
    if not stream.eof:
        raise EOFError("compressed values end before their end is marked")
