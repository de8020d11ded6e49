"""Reads DICOM headers with pydicom, and checks whether a file is complete.

SimpleITK reads the pixels. But it gives the same error for a truncated CT slice and for
an object that is no image, it fills pixel data that is too short with zeros, and it
invents geometry that a file does not state.

Headers are pydicom datasets whose values stay bytes of the file until they are decoded.
`text_of` and `numbers_of` decode without changing the dataset, so a header can be
written back byte by byte, in its character set.
"""

import dataclasses
import struct
import uuid
import warnings
import zlib
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import UID, ImplicitVRLittleEndian

COPY_AGAIN = "Copy the file again from its source, or remove it."
# pydicom raises these if a file ends or is garbled in the middle of an element.
_BROKEN = (EOFError, InvalidDicomError, KeyError, ValueError, struct.error, zlib.error)
# pydicom raises these if a value does not fit its VR.
GARBLED = (ValueError, TypeError, ArithmeticError, struct.error, NotImplementedError)
_UNDEFINED_LENGTH = 0xFFFFFFFF
# Larger values stay on disk: pixels, and large private elements of some vendors.
_LARGE = 1 << 16

CT_STORAGE = frozenset(
    f"1.2.840.10008.5.1.4.1.1.2{suffix}" for suffix in ("", ".1", ".2")
)
"""SOP classes CT, Enhanced CT and Legacy Converted Enhanced CT."""

LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",  # JPEG baseline
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",  # JPEG extended
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",  # JPEG 2000
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",  # HTJ2K
}
"""LossyImageCompressionMethod of the transfer syntaxes that may be lossy."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DicomHeader:
    """The header of a DICOM file.

    Attributes:
      dataset: all elements before the pixels, as far as they can be read.
      transfer_syntax: UID of the encoding.
      pixel_bytes: bytes of pixel data in the file; None without pixel data.
      complete: whether the header can be read to its end and, for CT, has pixels.
    """

    dataset: Dataset
    transfer_syntax: UID = ImplicitVRLittleEndian
    pixel_bytes: int | None = None
    complete: bool = False

    @property
    def sop_class(self) -> str:
        """UID of the kind of object, '' if not stated."""
        return text_of(self.dataset, "SOPClassUID")

    @property
    def modality(self) -> str:
        """'CT', 'MR', ...; '' if not stated."""
        return text_of(self.dataset, "Modality")

    @property
    def series(self) -> str:
        """SeriesInstanceUID, '' if not stated."""
        return text_of(self.dataset, "SeriesInstanceUID")

    @property
    def description(self) -> str:
        """SeriesDescription, '' if not stated."""
        return text_of(self.dataset, "SeriesDescription")

    @property
    def patient(self) -> str:
        """PatientID, '' if not stated."""
        return text_of(self.dataset, "PatientID")

    @property
    def frames(self) -> int:
        """NumberOfFrames, 1 if not stated."""
        text = text_of(self.dataset, "NumberOfFrames")
        return int(text) if text.isdigit() else 1

    @property
    def is_multi_frame(self) -> bool:
        """Whether it holds frames, each of which is a slice."""
        groups = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        return self.frames > 1 or any(name in self.dataset for name in groups)

    @property
    def is_ct(self) -> bool:
        """Whether it is CT, by its modality or, without one, by its SOP class."""
        return self.modality == "CT" or (
            not self.modality and self.sop_class in CT_STORAGE
        )

    @property
    def has_pixels(self) -> bool:
        """Whether there is pixel data."""
        return self.pixel_bytes is not None

    @property
    def is_packed(self) -> bool:
        """Whether the pixels are compressed, so their length tells no image size."""
        return self.transfer_syntax.is_compressed and not (
            self.transfer_syntax.is_deflated
        )


def is_dicom(path: Path) -> bool:
    """Returns whether a file's content starts as DICOM.

    It starts with 'DICM' after 128 bytes or, without that preamble, with an element of
    group 0002 or 0008 with an explicit value representation or an implicit length.
    """
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    # Without a preamble: (0002,0000) or (0008,00xx), xx even and small, then two
    # letters, or a length whose high bytes are zero.
    begins = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return len(start) == 132 and begins and (explicit or start[6:8] == b"\x00\x00")


def read_header(path: Path) -> DicomHeader:
    """Reads the header of a file for which `is_dicom` holds; it may be truncated.

    Args:
      path: the file.

    Returns:
      The header, as far as it can be read.

    Raises:
      OSError: The file cannot be opened.
    """
    # force: files without a preamble. pydicom warns of values that break the standard,
    # which real scanners write; those that matter here are checked where they are used.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            meta = read_file_meta_info(path)
        except _BROKEN:
            meta = Dataset()
        syntax = UID(text_of(meta, "TransferSyntaxUID") or ImplicitVRLittleEndian)
        # pydicom inflates a deflated file in memory, so no value can stay on disk.
        large = None if syntax.is_deflated else _LARGE
        try:
            dataset = pydicom.dcmread(path, force=True, defer_size=large)
            pixels = _raw(dataset, "PixelData")
        except (*_BROKEN, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # the file cannot be read at all; pydicom's errors have no errno
            return DicomHeader(dataset=_kind_of(meta), transfer_syntax=syntax)
        found = None if pixels is None else _bytes_there(pixels, path)
        if pixels is not None:
            del dataset["PixelData"]
        # The dataset states its SOP class too, unless it is cut before that.
        if "SOPClassUID" not in dataset:
            dataset.update(_kind_of(meta))
        is_ct = text_of(dataset, "SOPClassUID") in CT_STORAGE
    return DicomHeader(
        dataset=dataset,
        transfer_syntax=syntax,
        pixel_bytes=found,
        # A file can also be cut between two elements, but CT ends with pixels.
        complete=found is not None or not is_ct,
    )


def _kind_of(meta: Dataset) -> Dataset:
    """Returns a dataset with only the SOP class of the meta information."""
    kind = Dataset()
    if uid := text_of(meta, "MediaStorageSOPClassUID"):
        kind.SOPClassUID = UID(uid)
    return kind


def _bytes_there(pixels: DataElement | RawDataElement, path: Path) -> int:
    """Returns the bytes of pixel data in the file, which may state more."""
    if isinstance(pixels, RawDataElement) and pixels.value is None:
        left = path.stat().st_size - pixels.value_tell
        return left if pixels.length == _UNDEFINED_LENGTH else min(left, pixels.length)
    return len(pixels.value or b"")


def text_of(dataset: Dataset, keyword: str) -> str:
    """Returns the text of an element, '' without one; backslashes separate values.

    Args:
      dataset: not changed: its elements are not decoded in place.
      keyword: a keyword of the standard's dictionary.
    """
    element = _decoded(dataset, keyword)
    value = None if element is None else element.value
    if element is None or value is None:
        return ""
    several = not isinstance(value, str | bytes) and hasattr(value, "__iter__")
    values = list(value) if several and element.VR != "PN" else [value]
    return "\\".join(str(one) for one in values).strip(" \0")


def numbers_of(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Returns the numbers of an element; () without one or if one is no number."""
    text = _raw_text(dataset, keyword) or text_of(dataset, keyword)
    try:
        if not text or "_" in text:  # Python's float reads 1_0 as 10
            return ()
        return tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return ()


def number_of(dataset: Dataset, keyword: str, default: float) -> float:
    """Returns the first number of an element, or the default; see `numbers_of`."""
    return (*numbers_of(dataset, keyword), default)[0]


def bits_of(dataset: Dataset, keyword: str) -> str:
    """Returns the text of a 16-bit number whose sign the dictionary leaves open.

    Returns:
      Its digits, unsigned if the file does not state the VR (US or SS); the element's
      text if it is no such number; '' without the element.
    """
    element = _raw(dataset, keyword)
    value = None if element is None else element.value
    if isinstance(element, RawDataElement) and element.VR in (None, "UN", "US or SS"):
        order = "little" if element.is_little_endian else "big"
        return str(int.from_bytes(value[:2], order)) if value else ""
    return text_of(dataset, keyword)


def _raw_text(dataset: Dataset, keyword: str) -> str:
    """Returns the text of a decimal or integer string of the file, garbled or not.

    pydicom refuses a string if one of its values is garbled, or warns.
    """
    element = _raw(dataset, keyword)
    if isinstance(element, RawDataElement) and element.value is not None:
        vr = element.VR or pydicom.datadict.dictionary_VR(element.tag)
        if vr in ("DS", "IS"):
            return element.value.decode("latin-1").strip(" \0")
    return ""


def _raw(dataset: Dataset, keyword: str) -> DataElement | RawDataElement | None:
    """Returns an element without decoding it; a value left on disk is None."""
    if keyword not in dataset:
        return None
    return dataset.get_item(Tag(keyword), keep_deferred=True)


def _decoded(dataset: Dataset, keyword: str) -> DataElement | None:
    element = _raw(dataset, keyword)
    if not isinstance(element, RawDataElement):
        return element
    if element.value is None:  # left on disk: too large for any attribute read here
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return convert_raw_data_element(element, encoding=encodings_of(dataset))
        except GARBLED:
            return None


def encodings_of(dataset: Dataset) -> list[str]:
    """Returns Python's names of a dataset's character sets, or the default's."""
    element = _raw(dataset, "SpecificCharacterSet")
    if element is None:
        return convert_encodings(None)
    value = element.value
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip(" \0").split("\\")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom knows common misspellings
        try:
            return convert_encodings(value)
        except LookupError:
            return convert_encodings(None)


def new_uid() -> UID:
    """Returns a new UID: 2.25 and a UUID as an integer (PS3.5, B.2).

    It needs no registered root.
    """
    return UID(f"2.25.{uuid.uuid4().int}")
