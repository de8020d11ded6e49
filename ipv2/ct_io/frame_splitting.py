"""Multi-frame CT to classic slices, one file a frame, for readers of single slices.

Of Enhanced CT and Legacy Converted Enhanced CT (DICOM PS3.3, A.38 and A.70) each frame
becomes a CT Image (A.3). What the functional groups (C.7.6.16, C.8.15.3) say of a frame
goes to the attributes that classic CT has for it, as text where it is text; pixels stay
the bytes that they are, compressed or not. What a frame does not say is left out.
"""

import contextlib
import dataclasses
import struct
import tempfile
import uuid
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
from ipv2.ct_io.frame_groups import DROPPED, classic_attributes
from ipv2.ct_io.frame_pixels import FramePixels

_AGAIN = "Copy the file again from its source, or remove it."
# What pydicom raises where a file ends or is garbled in the middle of an element: VRs
# that there are not (NotImplementedError), values of another kind than their VR says
# (TypeError), missing meta information (AttributeError), no item (OSError), the rest.
_BROKEN = (
    *(AttributeError, BytesLengthException, EOFError, InvalidDicomError, KeyError),
    *(NotImplementedError, OSError, TypeError, ValueError, struct.error, zlib.error),
)
_BLOCK = 1 << 16
_PIXELS = 0x7FE00010


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame as a classic slice, and where it comes from.

    Attributes:
      path: the slice's file. Its SOPInstanceUID is new and means nothing outside.
      source_class: SOPClassUID of the multi-frame object.
      source_instance: SOPInstanceUID of the multi-frame object; '' if not stated.
      number: of the frame in it, from 1: ReferencedFrameNumber of a reference to it.
    """

    path: Path
    source_class: str
    source_instance: str
    number: int


def split_frames(path: Path, folder: Path) -> list[Frame]:
    """Each frame of a DICOM file as a classic CT slice.

    Frames are taken one at a time, so memory holds the header and one frame. A file
    with one frame, or with its geometry beside the functional groups, is split the
    same way: what no functional group says of a frame is what the object says.

    Args:
      path: a DICOM file with pixels, of one or more frames.
      folder: takes the slices, 000001.dcm and on by frame number; it exists.

    Returns:
      The frames, in the order of the file, which need not be that of their positions.

    Raises:
      UserError: the file is damaged or holds fewer frames than it says.
      OSError: it cannot be read, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        # pydicom warns of values that break the standard, which real scanners write;
        # here they are passed on.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_damage_told(path))
        file = stack.enter_context(path.open("rb"))
        source = _Source.open(path, stack.enter_context(_plain(file, folder)))
        return [
            _write(folder / f"{number:06d}.dcm", source, number, attributes, pixels)
            for number, (attributes, pixels) in enumerate(
                zip(source.attributes(), source.pixels.frames(), strict=True), start=1
            )
        ]


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turns what pydicom says of a damaged file into UserError."""
    try:
        yield
    except _BROKEN as error:
        if getattr(error, "errno", None) is not None or isinstance(error, UserError):
            raise  # not what the file holds: it cannot be read at all, or was told
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: damaged DICOM file ({reason}). {_AGAIN}") from error


@contextlib.contextmanager
def _plain(file: IO[bytes], folder: Path) -> Iterator[IO[bytes]]:
    """The file itself or, of one that is deflated as a whole, its inflated copy."""
    has_meta = file.read(132)[128:] == b"DICM"  # files from before 1996 have none
    file.seek(0)
    meta = read_file_meta_info(file.name) if has_meta else FileMetaDataset()
    if UID(meta.get("TransferSyntaxUID", "")) != DeflatedExplicitVRLittleEndian:
        yield file
        return
    # PS3.5, A.5: all after the meta information (preamble, prefix, and as many bytes
    # as its first element of 12 bytes says) is deflated, without a header.
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
      path: for messages.
      header: all before the pixels.
      syntax: the transfer syntax.
      pixels: those of the frames.
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
        """What classic CT says of each frame, without its pixels."""
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
                f"(NumberOfFrames). {_AGAIN}"
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
                groups[index] = Dataset()  # lets go of what was parsed
            yield frame


def _write(
    path: Path, source: _Source, number: int, attributes: Dataset, pixels: bytes
) -> Frame:
    """Writes a frame as a classic slice."""
    header = source.header
    # PS3.5, B.2: 2.25 and a UUID as an integer needs no registered root.
    instance = UID(f"2.25.{uuid.uuid4().int}")
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
