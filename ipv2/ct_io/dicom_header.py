"""What a DICOM file claims to be, and whether all of it is there; read with pydicom.

SimpleITK reads the pixels; but it gives the same error for a truncated CT slice and for
an object that is no image, and it fills pixel data that is too short with zeros.
"""

import dataclasses
import struct
import warnings
import zlib
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ImplicitVRLittleEndian

_WANTED = {
    "SOPClassUID": "sop_class",
    "Modality": "modality",
    "SeriesDescription": "description",
    "PatientID": "patient",
    "SeriesInstanceUID": "series",
}
# What pydicom raises where a file ends or is garbled in the middle of an element.
_BROKEN = (EOFError, InvalidDicomError, KeyError, ValueError, struct.error, zlib.error)

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
      pixel_bytes: bytes of pixel data in the file; None without pixel data, or where
        it is compressed (then its size says nothing).
      has_pixels: whether there is pixel data.
      complete: whether the header can be read to its end, and CT has pixels.
    """

    sop_class: str = ""
    modality: str = ""
    series: str = ""
    description: str = ""
    patient: str = ""
    frames: int = 1
    transfer_syntax: str = ImplicitVRLittleEndian
    pixel_bytes: int | None = None
    has_pixels: bool = False
    complete: bool = False


def is_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM: 'DICM' after 128 bytes, or group 0008."""
    with path.open("rb") as file:
        start = file.read(132)
    # Files from before 1996 have no preamble: a data set starts with (0008,00xx), xx
    # even and small, and implicit lengths keep the high bytes of the length zero.
    old = len(start) == 132 and start[:2] == b"\x08\x00" and start[3:4] == b"\x00"
    return start[128:] == b"DICM" or (old and start[6:8] == b"\x00\x00")


def read_header(path: Path) -> DicomHeader:
    """The header of a file for which `is_dicom` holds; it may be truncated.

    Args:
      path: the file.

    Returns:
      What it states, as far as it can be read.

    Raises:
      OSError: the file cannot be opened.
    """
    # force: files without a preamble. pydicom warns of values that break the standard,
    # which real scanners write; those that matter here are checked where they are used.
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")
        meta = _meta(path)
        try:
            dataset = pydicom.dcmread(
                file,
                force=True,
                specific_tags=[*_WANTED, "NumberOfFrames", "PixelData"],
            )
            found = {
                ours: str(dataset.get(theirs) or "").strip(" \0")
                for theirs, ours in _WANTED.items()
            }
            frames = str(dataset.get("NumberOfFrames") or "")
            pixels = dataset.get("PixelData")
        except (*_BROKEN, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # not pydicom's "no tag to read": the file cannot be read at all
            return DicomHeader(sop_class=meta.sop_class)
    # The data set states its kind too, unless it is cut before that.
    found["sop_class"] = found["sop_class"] or meta.sop_class
    compressed = meta.transfer_syntax.is_compressed and not (
        meta.transfer_syntax.is_deflated
    )
    return DicomHeader(
        **found,
        frames=int(frames) if frames.isdigit() else 1,
        transfer_syntax=meta.transfer_syntax,
        pixel_bytes=None if pixels is None or compressed else len(pixels),
        has_pixels=pixels is not None,
        # A file can also be cut between two elements: CT has pixels at its end.
        complete=pixels is not None or found["sop_class"] not in CT_STORAGE,
    )


@dataclasses.dataclass(frozen=True)
class _Meta:
    sop_class: str = ""
    transfer_syntax: UID = ImplicitVRLittleEndian


def _meta(path: Path) -> _Meta:
    """What the file meta information (group 0002) says, if there is one."""
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except _BROKEN:
        return _Meta()
    return _Meta(
        str(meta.get("MediaStorageSOPClassUID") or ""),
        UID(meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian),
    )
