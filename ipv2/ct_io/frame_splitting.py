"""Splits multi-frame CT into classic slices, one file per frame.

Each frame of Enhanced CT and Legacy Converted Enhanced CT (DICOM PS3.3, A.38 and A.70)
becomes a CT Image (A.3). The values of the functional groups (C.7.6.16, C.8.15.3) go to
the matching attributes of classic CT; texts stay texts. Pixels keep their bytes,
compressed or not. Attributes that a frame does not state are left out.
"""

import contextlib
import dataclasses
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pydicom
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import (
    encapsulate,
)
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from common.errors import UserError
from ipv2.ct_io.dicom_header import COPY_AGAIN, new_uid
from ipv2.ct_io.frame_groups import DROPPED, classic_attributes
from ipv2.ct_io.frame_pixels import FramePixels

# pydicom raises these if a file ends or is garbled in the middle of an element: unknown
# VR (NotImplementedError), value that does not fit its VR (TypeError), no meta
# information (AttributeError), no item (OSError), and others.
_BROKEN = (
    *(AttributeError, BytesLengthException, EOFError, InvalidDicomError, KeyError),
    *(NotImplementedError, OSError, TypeError, ValueError, struct.error, zlib.error),
)
_BLOCK = 1 << 16
_PIXELS = 0x7FE00010


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame as a classic slice, and its source.

    Attributes:
      path: file of the slice. Its SOPInstanceUID is new and known nowhere else.
      source_class: SOPClassUID of the multi-frame object.
      source_instance: SOPInstanceUID of the multi-frame object; '' if not stated.
      number: number of the frame in the object, from 1, for ReferencedFrameNumber.
    """

    path: Path
    source_class: str
    source_instance: str
    number: int


def split_frames(path: Path, folder: Path) -> list[Frame]:
    """Writes each frame of a DICOM file as a classic CT slice.

    Frames are read one at a time, so memory holds the header and one frame. Files with
    one frame, or with geometry outside the functional groups, are split the same way:
    attributes that no functional group states are those of the whole object.

    Args:
      path: a DICOM file with pixels, of one or more frames.
      folder: existing folder for the slices, 000001.dcm ... by frame number.

    Returns:
      The frames in the order of the file, which may differ from that of positions.

    Raises:
      UserError: The file is damaged or holds fewer frames than it states.
      OSError: The file cannot be read, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        # pydicom warns of values that break the standard. Real scanners write them,
        # and they are passed on.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_damage_as_user_error(path))
        file = stack.enter_context(path.open("rb"))
        source = _Source.open(path, stack.enter_context(_plain(file, folder)))
        return [
            _write(folder / f"{number:06d}.dcm", source, number, attributes, pixels)
            for number, (attributes, pixels) in enumerate(
                zip(source.attributes(), source.pixels.frames(), strict=True), start=1
            )
        ]


@contextlib.contextmanager
def _damage_as_user_error(path: Path) -> Iterator[None]:
    """Turns pydicom's errors for damaged files into UserError."""
    try:
        yield
    except _BROKEN as error:
        if getattr(error, "errno", None) is not None or isinstance(error, UserError):
            raise  # the file cannot be read, or its message is already made
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: damaged DICOM file ({reason}). {COPY_AGAIN}"
        ) from error


@contextlib.contextmanager
def _plain(file: IO[bytes], folder: Path) -> Iterator[IO[bytes]]:
    """Yields the file itself or, if it is deflated as a whole, an inflated copy."""
    has_meta = file.read(132)[128:] == b"DICM"  # files from before 1996 have none
    file.seek(0)
    meta = read_file_meta_info(file.name) if has_meta else FileMetaDataset()
    if UID(meta.get("TransferSyntaxUID", "")) != DeflatedExplicitVRLittleEndian:
        yield file
        return
    # PS3.5, A.5: everything after the meta information is deflated, without a header.
    # The first element of the meta information, 12 bytes long, states its length.
    start = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    with tempfile.TemporaryFile(dir=folder) as inflated:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        pydicom.dcmwrite(inflated, _empty(meta), enforce_file_format=True)
        file.seek(start)
        while block := file.read(_BLOCK):
            inflated.write(stream.decompress(block))
        inflated.write(stream.flush())
        inflated.seek(0)
        yield inflated


def _empty(meta: FileMetaDataset) -> Dataset:
    data = Dataset()
    data.file_meta = meta
    return data


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
    """A multi-frame file, open at its pixels.

    Attributes:
      path: path for messages.
      header: all elements before the pixels.
      syntax: the transfer syntax.
      pixels: pixels of the frames.
    """

    path: Path
    header: Dataset
    syntax: UID
    pixels: FramePixels

    @classmethod
    def open(cls, path: Path, file: IO[bytes]) -> "_Source":
        """Reads the header."""
        header = pydicom.dcmread(file, force=True, stop_before_pixels=True)
        implicit, little = header.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        syntax = UID(
            header.file_meta.get("TransferSyntaxUID")
            or (ImplicitVRLittleEndian if implicit else plain)
        )
        pixels = FramePixels.find(
            path, file, header, encapsulated=syntax.is_encapsulated
        )
        return cls(path=path, header=header, syntax=syntax, pixels=pixels)

    def attributes(self) -> Iterator[Dataset]:
        """Yields the classic attributes of each frame, without its pixels."""
        common = Dataset()
        common.update(self.header)
        shared = common.get("SharedFunctionalGroupsSequence") or [Dataset()]
        groups = list(common.get("PerFrameFunctionalGroupsSequence") or ())
        for name in DROPPED:
            common.pop(name, None)
        if not common.get("AcquisitionContextSequence"):
            common.pop("AcquisitionContextSequence", None)
        if groups and len(groups) != self.pixels.count:
            raise UserError(
                f"{self.path}: damaged: {len(groups)} items in "
                f"PerFrameFunctionalGroupsSequence for {self.pixels.count} frames "
                f"(NumberOfFrames). {COPY_AGAIN}"
            )
        common.update(classic_attributes(shared[0]))
        for index in range(self.pixels.count):
            frame = Dataset()
            implicit, little = self.header.original_encoding
            charset = self.header.original_character_set
            frame.set_original_encoding(implicit, little, charset)
            frame.update(common)
            if groups:
                frame.update(classic_attributes(groups[index]))
                groups[index] = Dataset()  # frees the parsed values
            yield frame


def _write(
    path: Path, source: _Source, number: int, attributes: Dataset, pixels: bytes
) -> Frame:
    """Writes a frame as a classic slice."""
    header = source.header
    instance = new_uid()
    attributes.SOPClassUID = CTImageStorage
    attributes.SOPInstanceUID = instance
    attributes.InstanceNumber = number
    encapsulated = source.pixels.encapsulated
    # DICOM values have an even length.
    value = (
        encapsulate([pixels]) if encapsulated else pixels + b"\0" * (len(pixels) % 2)
    )
    element = DataElement(_PIXELS, source.pixels.vr, value, already_converted=True)
    element.is_undefined_length = encapsulated
    attributes[_PIXELS] = element
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = source.syntax
    attributes.file_meta = meta
    attributes.save_as(path, enforce_file_format=True)
    return Frame(
        path=path,
        source_class=str(header.get("SOPClassUID") or CTImageStorage),
        source_instance=str(header.get("SOPInstanceUID") or ""),
        number=number,
    )
