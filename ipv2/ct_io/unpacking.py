"""Files that ITK reads whole or not at all, unpacked into ones it reads in parts.

ITK seeks in NIfTI and MHA that are not compressed. A .nii.gz is unpacked as it is; of a
NRRD or a compressed MHA the values become an uncompressed MHA, under the header that
SimpleITK makes of the same geometry. Both in blocks, never in whole.
"""

import gzip
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import SimpleITK as sitk

from common.errors import UserError
from ipv2.ct_io.image_header import damage_told, text_fields
from ipv2.ct_io.image_writing import header_of
from ipv2.ct_io.volume import Format

_BLOCK = 1 << 20
# zlib's word for "whichever header there is, of gzip or zlib".
_ANY_HEADER = 47


def unpack_nifti(path: Path, folder: Path) -> Path:
    """The content of a .nii.gz as a file in `folder`.

    Raises:
      UserError: the file is damaged.
      OSError: it cannot be read at all, or the folder is full.
    """
    unpacked = folder / "unpacked.nii"
    with damage_told(path), gzip.open(path) as packed, unpacked.open("wb") as file:
        shutil.copyfileobj(packed, file, _BLOCK)
    return unpacked


def unpack_image(
    path: Path, kind: Format, header: sitk.ImageFileReader, folder: Path
) -> Path | None:
    """A NRRD or compressed MHA as an uncompressed MHA in `folder`.

    Args:
      path: the file.
      kind: 'nrrd' or 'mha'.
      header: SimpleITK's, of a volume with one channel.
      folder: takes the result.

    Returns:
      The file; None where the values lie as only ITK reads them: in other files, in
      text, in bzip2, with the high byte first, or in other than three dimensions.

    Raises:
      UserError: the file is damaged.
      OSError: it cannot be read at all, or the folder is full.
    """
    values = _find_nrrd(path) if kind == "nrrd" else _find_mha(path)
    size = header.GetSize()
    if values is None or len(size) != 3:
        return None
    few = sitk.Image([*size[:2], min(size[2], 2)], header.GetPixelID())
    few.SetSpacing(header.GetSpacing())
    few.SetOrigin(header.GetOrigin())
    few.SetDirection(header.GetDirection())
    expected = size[0] * size[1] * size[2] * few.GetSizeOfPixelComponent()
    unpacked = folder / "unpacked.mha"
    start = header_of(few, size[2], unpacked, "mha")
    found = 0
    with damage_told(path), path.open("rb") as packed, unpacked.open("wb") as file:
        file.write(start)
        packed.seek(values.offset)
        for block in _inflated(packed) if values.packed else _blocks(packed):
            found += len(block)
            file.write(block)
    if found < expected:
        raise UserError(
            f"{path}: truncated: {found} bytes of values where {expected} are needed. "
            "Copy it again from its source."
        )
    return unpacked


class _Values(NamedTuple):
    """Where a file's values begin, and whether they are compressed."""

    offset: int
    packed: bool


def _find_nrrd(path: Path) -> _Values | None:
    fields, offset = text_fields(path, "nrrd")
    elsewhere = {"data file", "datafile", "line skip", "byte skip", "lineskip"}
    little = fields.get("endian", "little") == "little"
    encoding = fields.get("encoding", "")
    if elsewhere & fields.keys() or "byteskip" in fields or not little:
        return None
    if encoding not in ("raw", "gzip", "gz"):
        return None
    return _Values(offset, encoding != "raw")


def _find_mha(path: Path) -> _Values | None:
    fields, offset = text_fields(path, "mha")
    high_first = {
        fields.get(key, "false")
        for key in ("binarydatabyteordermsb", "elementbyteordermsb")
    }
    local = fields.get("elementdatafile") == "local"
    if not local or high_first != {"false"} or "headersize" in fields:
        return None
    return _Values(offset, fields.get("compresseddata") == "true")


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _inflated(file: IO[bytes]) -> Iterator[bytes]:
    """What the rest of a file holds, unpacked; raises EOFError if it ends too early."""
    stream = zlib.decompressobj(_ANY_HEADER)
    for block in _blocks(file):
        while block and not stream.eof:
            yield stream.decompress(block, _BLOCK)
            block = stream.unconsumed_tail
        if stream.eof:
            return
    yield stream.flush()
    if not stream.eof:
        raise EOFError("compressed values end before their end is marked")
