"""Multi-frame CT to classic slices, one file a frame, for readers of single slices.

Of Enhanced CT and Legacy Converted Enhanced CT (DICOM PS3.3, A.38 and A.70) each frame
becomes a CT Image (A.3). What the functional groups (C.7.6.16, C.8.15.3) say of a frame
goes to the attributes that classic CT has for it, as text where it is text; pixels stay
the bytes that they are, compressed or not. What a frame does not say is left out.
"""

import contextlib
import dataclasses
import os
import struct
import tempfile
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

import pydicom
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import (
    encapsulate,
    generate_fragments,
    generate_frames,
    parse_basic_offsets,
    parse_fragments,
)
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from common.errors import UserError

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
_UNDEFINED = 0xFFFFFFFF

# Of the whole object, or lists of what all frames refer to: of no use in a slice, and
# as long as the series.
_DROPPED = (
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("DimensionOrganizationSequence", "DimensionIndexSequence"),
    *("DimensionOrganizationType", "NumberOfFrames", "FrameIncrementPointer"),
    *("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber"),
    *("ConcatenationFrameOffsetNumber", "SOPInstanceUIDOfConcatenationSource"),
    *("PixelPresentation", "VolumetricProperties", "VolumeBasedCalculationTechnique"),
    *("SourceImageEvidenceSequence", "ReferencedImageEvidenceSequence"),
    *("ReferencedSeriesSequence", "StudiesContainingOtherReferencedInstancesSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "IconImageSequence"),
)
# Functional groups whose attributes have the same names in classic CT; `None`: all.
_SAME_NAMES: Mapping[str, tuple[str, ...] | None] = {
    "UnassignedSharedConvertedAttributesSequence": None,
    "UnassignedPerFrameConvertedAttributesSequence": None,
    "PixelMeasuresSequence": None,
    "PlanePositionSequence": None,
    "PlaneOrientationSequence": None,
    "PixelValueTransformationSequence": None,
    "FrameVOILUTSequence": None,
    "IrradiationEventIdentificationSequence": None,
    "PatientOrientationInFrameSequence": None,
    "CTAcquisitionDetailsSequence": None,
    "CTTableDynamicsSequence": None,
    "CTPositionSequence": (
        *("DataCollectionCenterPatient", "ReconstructionTargetCenterPatient"),
        "TablePosition",
    ),
    "CTReconstructionSequence": None,
    "CTExposureSequence": (
        *("CTDIvol", "CTDIPhantomTypeCodeSequence", "ExposureModulationType"),
        *("EstimatedDoseSaving", "WaterEquivalentDiameter"),
        "WaterEquivalentDiameterCalculationMethodCodeSequence",
    ),
    "CTXRayDetailsSequence": None,
    "FrameAnatomySequence": (
        *("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"),
    ),
}
# Attributes with another name in classic CT: group, name there, name here, and how many
# of the unit here make one there; None: no number, or not scaled.
_OTHER_NAMES: tuple[tuple[str, str, str, int | None], ...] = (
    ("CTImageFrameTypeSequence", "FrameType", "ImageType", None),
    ("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber", 1),
    ("FrameContentSequence", "FrameAcquisitionDateTime", "AcquisitionDateTime", None),
    ("FrameContentSequence", "FrameComments", "ImageComments", None),
    ("FrameAnatomySequence", "FrameLaterality", "ImageLaterality", None),
    ("CTExposureSequence", "ExposureTimeInms", "ExposureTime", 1),
    ("CTExposureSequence", "XRayTubeCurrentInmA", "XRayTubeCurrent", 1),
    ("CTExposureSequence", "ExposureInmAs", "Exposure", 1),
    ("CTExposureSequence", "ExposureInmAs", "ExposureInuAs", 1000),
)
# Functional groups that classic CT has as a sequence of the same name.
_WHOLE = ("ReferencedImageSequence", "RealWorldValueMappingSequence")


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
                zip(source.attributes(), source.pixels(), strict=True), start=1
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
      file: positioned at the value of the pixel data.
      header: all before the pixels.
      syntax: the transfer syntax.
      frames: how many.
      vr: of the pixel data.
      length: of the pixel data in bytes, _UNDEFINED if it is encapsulated.
    """

    path: Path
    file: IO[bytes]
    header: Dataset
    syntax: UID
    frames: int
    vr: str
    length: int

    @classmethod
    def open(cls, path: Path, file: IO[bytes]) -> "_Source":
        """Reads the header."""
        header = pydicom.dcmread(file, force=True, stop_before_pixels=True)
        implicit, little = header.original_encoding
        vr, length = _pixel_element(file, implicit=bool(implicit), little=bool(little))
        if vr is None:
            raise UserError(f"{path}: a DICOM file without pixels, or cut before them.")
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        return cls(
            path=path,
            file=file,
            header=header,
            syntax=UID(
                header.file_meta.get("TransferSyntaxUID")
                or (ImplicitVRLittleEndian if implicit else plain)
            ),
            frames=int(header.get("NumberOfFrames") or 1),
            vr=vr,
            length=length,
        )

    def attributes(self) -> Iterator[Dataset]:
        """What classic CT says of each frame, without its pixels."""
        common = Dataset()
        common.update(self.header)
        shared = common.get("SharedFunctionalGroupsSequence") or [Dataset()]
        groups = list(common.get("PerFrameFunctionalGroupsSequence") or ())
        for name in _DROPPED:
            common.pop(name, None)
        if not common.get("AcquisitionContextSequence"):
            common.pop("AcquisitionContextSequence", None)
        if groups and len(groups) != self.frames:
            raise UserError(
                f"{self.path}: damaged: {len(groups)} items in "
                f"PerFrameFunctionalGroupsSequence for {self.frames} frames "
                f"(NumberOfFrames). {_AGAIN}"
            )
        common.update(_classic(shared[0]))
        for index in range(self.frames):
            frame = Dataset()
            implicit, little = self.header.original_encoding
            charset = self.header.original_character_set
            frame.set_original_encoding(implicit, little, charset)
            frame.update(common)
            if groups:
                frame.update(_classic(groups[index]))
                groups[index] = Dataset()  # lets go of what was parsed
            yield frame

    def pixels(self) -> Iterator[bytes]:
        """The pixels of each frame as they are in the file, one frame in memory."""
        frames = self._encapsulated if self.syntax.is_encapsulated else self._native
        return frames()

    def _native(self) -> Iterator[bytes]:
        rows, columns, bits, samples = (
            int(self.header.get(name) or default)
            for name, default in (
                ("Rows", 0),
                ("Columns", 0),
                ("BitsAllocated", 0),
                ("SamplesPerPixel", 1),
            )
        )
        size, rest = divmod(rows * columns * samples * bits, 8)
        if not size or rest:
            raise UserError(
                f"{self.path}: {rows} x {columns} pixels of {bits} bits; CT slices "
                "have rows and columns of 8 or 16 bits."
            )
        start = self.file.tell()
        found = min(self.length, self.file.seek(0, os.SEEK_END) - start)
        if found < size * self.frames:
            raise UserError(
                f"{self.path}: truncated: {found} bytes of pixels where {self.frames} "
                f"frames of {size} bytes need {size * self.frames}. {_AGAIN}"
            )
        self.file.seek(start)
        for _ in range(self.frames):
            yield self.file.read(size)

    def _encapsulated(self) -> Iterator[bytes]:
        start = self.file.tell()
        parse_basic_offsets(self.file)
        count, offsets = parse_fragments(self.file)
        self._check_fragments(offsets)
        if count == self.frames:
            # One fragment a frame: the tables, which may be wrong, are not needed.
            frames = generate_fragments(self.file)
        else:
            self.file.seek(start)
            tables = (
                self.header.get("ExtendedOffsetTable"),
                self.header.get("ExtendedOffsetTableLengths"),
            )
            frames = generate_frames(
                self.file,
                number_of_frames=self.frames,
                extended_offsets=cast(tuple[bytes, bytes], tables)
                if all(tables)
                else None,
            )
        found = 0
        for found, pixels in enumerate(frames, start=1):
            if found > self.frames or not pixels:
                break
            yield pixels
        if found != self.frames:
            raise UserError(
                f"{self.path}: truncated or damaged: its pixels do not make the "
                f"{self.frames} frames that it states (NumberOfFrames). {_AGAIN}"
            )

    def _check_fragments(self, offsets: list[int]) -> None:
        """Raises UserError unless the last fragment ends within the file."""
        here = self.file.tell()
        end = self.file.seek(0, os.SEEK_END)
        last = _UNDEFINED
        if offsets:
            self.file.seek(offsets[-1] + 4)
            last = offsets[-1] + 8 + int.from_bytes(self.file.read(4), "little")
        self.file.seek(here)
        if not offsets or last > end:
            raise UserError(f"{self.path}: truncated in its pixels. {_AGAIN}")


def _pixel_element(
    file: IO[bytes], *, implicit: bool, little: bool
) -> tuple[str | None, int]:
    """VR and length of the pixel data that the file stands at; (None, 0) without."""
    order = "<" if little else ">"
    start = file.read(8)
    if len(start) < 8 or struct.unpack(f"{order}HH", start[:4]) != (0x7FE0, 0x0010):
        return None, 0
    if implicit:
        return "OW", struct.unpack(f"{order}L", start[4:])[0]
    return start[4:6].decode("latin-1"), struct.unpack(f"{order}L", file.read(4))[0]


def _classic(groups: Dataset) -> Dataset:
    """The classic attributes of an item of functional groups."""
    found = Dataset()
    for name, wanted in _SAME_NAMES.items():
        for item in groups.get(name) or ():
            names = None if wanted is None else {tag_for_keyword(n) for n in wanted}
            for tag in item.keys():
                # The text of a frame is in the character set of the whole object.
                if tag != 0x00080005 and (names is None or tag in names):
                    found[tag] = item.get_item(tag)
    for name in _WHOLE:
        if name in groups:
            found[name] = groups[name]
    for group, there, here, scale in _OTHER_NAMES:
        for item in groups.get(group) or ():
            if there in item:
                _rename(item, there, found, here, scale)
    _split_date(found)
    _join_derivations(groups.get("DerivationImageSequence") or (), found)
    return found


def _rename(
    item: Dataset, there: str, found: Dataset, here: str, scale: int | None
) -> None:
    tag = cast(int, tag_for_keyword(here))
    element = item.get_item(there)
    if scale is not None:
        value = item[there].value
        if value is None or value == "":
            return
        text = str(round(float(value) * scale))
        found[tag] = DataElement(tag, dictionary_VR(tag), text)
    elif isinstance(element, RawDataElement):
        found[tag] = element._replace(tag=BaseTag(tag))
    else:
        value = item[there].value
        element = DataElement(tag, dictionary_VR(tag), value, already_converted=True)
        found[tag] = element


def _split_date(found: Dataset) -> None:
    """Adds AcquisitionDate and AcquisitionTime to an AcquisitionDateTime."""
    text = str(found.get("AcquisitionDateTime") or "").strip(" \0")
    moment = text.partition("+")[0].partition("-")[0]
    if len(moment) >= 14:  # YYYYMMDDHHMMSS
        for name, vr, part in (
            ("AcquisitionDate", "DA", moment[:8]),
            ("AcquisitionTime", "TM", moment[8:]),
        ):
            tag = cast(int, tag_for_keyword(name))
            found[tag] = DataElement(tag, vr, part, already_converted=True)


def _join_derivations(items: pydicom.Sequence | tuple[()], found: Dataset) -> None:
    """Adds what the items of DerivationImageSequence say, joined."""
    texts = [str(text) for i in items if (text := i.get("DerivationDescription"))]
    if texts:
        found.DerivationDescription = "; ".join(texts)
    for name in ("DerivationCodeSequence", "SourceImageSequence"):
        joined = [item for outer in items for item in outer.get(name) or ()]
        if joined:
            setattr(found, name, joined)


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
    encapsulated = source.syntax.is_encapsulated
    # DICOM values have an even length.
    value = (
        encapsulate([pixels]) if encapsulated else pixels + b"\0" * (len(pixels) % 2)
    )
    element = DataElement(_PIXELS, source.vr, value, already_converted=True)
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
