"""Enough of the DICOM file format to tell a whole CT file from a damaged one.

SimpleITK reads the pixels; but it gives the same error for a truncated CT slice and for
an object that is no image, and it fills pixel data that is too short with zeros. This
walk over the top-level elements (PS3.5, chapter 7) answers what SimpleITK cannot: what
kind of object the file claims to be, and how many bytes of pixel data it really holds.
"""

import dataclasses
import struct
import zlib
from pathlib import Path

from common.errors import UserError

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_LONG_LENGTH = frozenset(
    vr.encode() for vr in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
)
_UNDEFINED = 0xFFFFFFFF
_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_MEDIA_SOP_CLASS, _TRANSFER_SYNTAX = 0x00020002, 0x00020010
_WANTED = {
    0x00080016: "sop_class",
    0x00080060: "modality",
    0x0008103E: "description",
    0x00100020: "patient",
    0x0020000E: "series",
    0x00280008: "frames",
}

CT_STORAGE = frozenset(
    f"1.2.840.10008.5.1.4.1.1.2{suffix}" for suffix in ("", ".1", ".2")
)
"""SOP classes CT, Enhanced CT and Legacy Converted Enhanced CT."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DicomHeader:
    """What a DICOM file says of itself.

    Attributes:
      sop_class: UID of the kind of object, '' if not stated.
      modality: 'CT', 'MR', ...; '' if not stated.
      series: SeriesInstanceUID, '' if not stated.
      description: SeriesDescription, '' if not stated.
      patient: PatientID, '' if not stated.
      frames: NumberOfFrames, 1 if not stated.
      transfer_syntax: UID of the encoding.
      pixel_bytes: bytes of pixel data stated by the file; None without pixel data, or
        where it is compressed (then its size says nothing).
      has_pixels: whether there is pixel data.
      complete: whether the file holds all bytes that it states.
    """

    sop_class: str
    modality: str
    series: str
    description: str
    patient: str
    frames: int
    transfer_syntax: str
    pixel_bytes: int | None
    has_pixels: bool
    complete: bool


class _Truncated(Exception):
    """The file ends inside an element."""


class _Elements:
    """A cursor over a data set's elements."""

    def __init__(self, data: bytes, *, implicit: bool, big_endian: bool) -> None:
        self.data = data
        self.position = 0
        self.implicit = implicit
        self.order = ">" if big_endian else "<"

    def _unpack(self, code: str) -> tuple[int, ...]:
        size = struct.calcsize(code)
        chunk = self.data[self.position : self.position + size]
        if len(chunk) < size:
            raise _Truncated
        self.position += size
        return struct.unpack(self.order + code, chunk)

    def tag(self) -> int:
        group, element = self._unpack("HH")
        return group << 16 | element

    def length(self, tag: int) -> tuple[int, bytes]:
        """Length of the element's value and its VR, b'' where there is none."""
        if self.implicit or tag >> 16 == 0xFFFE:
            return self._unpack("I")[0], b""
        vr = self.data[self.position : self.position + 2]
        if vr in _LONG_LENGTH:
            self._unpack("I")
            return self._unpack("I")[0], vr
        return self._unpack("HH")[1], vr

    def value(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.data):
            raise _Truncated
        value = self.data[self.position : end]
        self.position = end
        return value

    def skip_sequence(self, vr: bytes) -> None:
        """Skips the items of a sequence of undefined length."""
        outer = self.implicit, self.order
        if vr == b"UN":  # PS3.5, 6.2.2: its content is implicit little endian.
            self.implicit, self.order = True, "<"
        while (tag := self.tag()) != _SEQUENCE_END:
            length, _ = self.length(tag)
            if length != _UNDEFINED:
                self.value(length)
                continue
            while (inner := self.tag()) != _ITEM_END:
                inner_length, inner_vr = self.length(inner)
                if inner_length == _UNDEFINED:
                    self.skip_sequence(inner_vr)
                else:
                    self.value(inner_length)
            self.length(_ITEM_END)
        self.length(_SEQUENCE_END)
        self.implicit, self.order = outer


def _text(value: bytes) -> str:
    return value.decode("ascii", errors="replace").strip(" \0")


def _data_set(data: bytes, path: Path) -> tuple[dict[int, str], bytes]:
    """The file meta information (group 0002), and the bytes after it."""
    if data[128:132] != b"DICM":
        # Files from before 1996 have no preamble, and the default encoding.
        return {}, data
    meta = _Elements(data[132:], implicit=False, big_endian=False)
    found: dict[int, str] = {}
    while struct.unpack("<H", meta.data[meta.position :][:2].ljust(2, b"\0"))[0] == 2:
        tag = meta.tag()
        found[tag] = _text(meta.value(meta.length(tag)[0]))
    body = meta.data[meta.position :]
    if found.get(_TRANSFER_SYNTAX) != _DEFLATED:
        return found, body
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return found, inflate.decompress(body)
    except zlib.error as error:
        raise UserError(
            f"{path}: damaged: its deflated data set does not inflate ({error}). Copy "
            "the file again from its source."
        ) from error


def is_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM: 'DICM' after 128 bytes, or group 0008."""
    with path.open("rb") as file:
        start = file.read(132)
    # Without the preamble, a data set starts with (0008,00xx), xx even and small, and
    # implicit lengths keep the third and fourth byte of the length zero.
    old = len(start) == 132 and start[:2] == b"\x08\x00" and start[3:4] == b"\x00"
    return start[128:] == b"DICM" or (old and start[6:8] == b"\x00\x00")


def read_header(path: Path) -> DicomHeader:
    """The header of a file for which `is_dicom` holds; it may be truncated.

    Args:
      path: the file.

    Returns:
      What it states, as far as it can be read.

    Raises:
      UserError: its deflated part is damaged.
    """
    found: dict[str, str] = {}
    pixel_bytes: int | None = None
    has_pixels, complete, syntax = False, False, ""
    try:
        meta, body = _data_set(path.read_bytes(), path)
        syntax = meta.get(_TRANSFER_SYNTAX, _IMPLICIT_LITTLE)
        # The data set states it too, unless it is cut before that.
        found["sop_class"] = meta.get(_MEDIA_SOP_CLASS, "")
        elements = _Elements(
            body,
            implicit=syntax == _IMPLICIT_LITTLE,
            big_endian=syntax == _EXPLICIT_BIG,
        )
        while elements.position < len(body):
            tag = elements.tag()
            length, vr = elements.length(tag)
            if tag == _PIXEL_DATA:
                has_pixels = True
                pixel_bytes = None if length == _UNDEFINED else length
                # Compressed frames are checked by their decoder.
                complete = length == _UNDEFINED or bool(elements.value(length))
                break
            if length == _UNDEFINED:
                elements.skip_sequence(vr)
                continue
            value = elements.value(length)
            if tag in _WANTED:
                found[_WANTED[tag]] = _text(value)
        else:
            # A file can also be cut between two elements: CT has pixels at its end.
            complete = found["sop_class"] not in CT_STORAGE
    except _Truncated:
        complete = False
    frames = found.get("frames", "")
    return DicomHeader(
        sop_class=found.get("sop_class", ""),
        modality=found.get("modality", ""),
        series=found.get("series", ""),
        description=found.get("description", ""),
        patient=found.get("patient", ""),
        frames=int(frames) if frames.isdigit() else 1,
        transfer_syntax=syntax,
        pixel_bytes=pixel_bytes,
        has_pixels=has_pixels,
        complete=complete,
    )
