"""What SimpleITK does not say of NIfTI and PNG files, read from their headers."""

import dataclasses
import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from common.errors import UserError

_NIFTI2_HEADER = 540
_CHUNK = 1 << 24  # A multiple of every voxel's size.


@dataclasses.dataclass(frozen=True)
class _Nifti:
    """Where the voxels of a NIfTI file are, by its own header."""

    offset: int
    size: int
    floats: str  # NumPy's name of the type, '' for integers.


def check_nifti(path: Path) -> None:
    """Raises UserError if a NIfTI file is too short, or holds NaN or infinity.

    SimpleITK tells neither: it fills what is missing with whatever memory holds, and
    replaces what is not finite by 0, which is water.
    """
    compressed = path.name.lower().endswith(".gz")
    opened = gzip.open(path, "rb") if compressed else path.open("rb")
    bad = read = 0
    try:
        with opened as file:
            start = file.read(_NIFTI2_HEADER)
            nifti = _nifti_header(path, start)
            file.seek(nifti.offset)
            while read < nifti.size:
                want = min(nifti.size - read, _CHUNK)
                chunk = file.read(want)
                read += len(chunk)
                if len(chunk) < want:
                    break
                bad += _count_not_finite(chunk, nifti.floats)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}: truncated or damaged ({error}). Copy it again from its source."
        ) from error
    if read < nifti.size:
        raise UserError(
            f"{path}: truncated: {read} bytes of voxels, its header asks for "
            f"{nifti.size}. Copy it again from its source."
        )
    if bad:
        raise UserError(
            f"{path}: {bad} voxels are not finite (NaN or infinity); HU are finite "
            "numbers. Repair or remove the image."
        )


def _count_not_finite(chunk: bytes, floats: str) -> int:
    if not floats:
        return 0
    values = np.frombuffer(chunk, floats)
    return values.size - int(np.count_nonzero(np.isfinite(values)))


def _nifti_header(path: Path, header: bytes) -> _Nifti:
    """The header of nifti1.h (348 bytes) or nifti2.h (540), of either byte order."""
    for order in "<>":
        if len(header) >= 348 and struct.unpack(order + "i", header[:4]) == (348,):
            dims = struct.unpack(order + "8h", header[40:56])
            kind, bits = struct.unpack(order + "2h", header[70:74])
            (offset,) = struct.unpack(order + "f", header[108:112])
            break
        if len(header) >= 540 and struct.unpack(order + "i", header[:4]) == (540,):
            kind, bits = struct.unpack(order + "2h", header[12:16])
            dims = struct.unpack(order + "8q", header[16:80])
            (offset,) = struct.unpack(order + "q", header[168:176])
            break
    else:
        raise UserError(
            f"{path}: not NIfTI: its header is not one. It is damaged, truncated, or "
            "of another kind than its name says."
        )
    count = math.prod(max(n, 1) for n in dims[1 : dims[0] + 1])
    floats = {16: f"{order}f4", 64: f"{order}f8"}.get(kind, "")
    return _Nifti(offset=int(offset), size=count * bits // 8, floats=floats)


def check_png(path: Path) -> None:
    """Raises UserError unless a PNG is grey, with 8 or 16 bits."""
    with path.open("rb") as file:
        header = file.read(26)
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 26:
        raise UserError(
            f"{path}: not PNG: its header is not one. It is damaged, truncated, or of "
            "another kind than its name says."
        )
    bits, kind = header[24], header[25]
    if kind != 0 or bits not in (8, 16):
        name = {0: "grey", 2: "RGB colour", 3: "palette colour", 4: "grey with alpha"}
        raise UserError(
            f"{path}: {name.get(kind, 'colour with alpha')}, {bits} bits a channel; CT "
            "is one grey channel of 8 or 16 bits. Save it as plain grey, or give the "
            "original instead of a screenshot."
        )
