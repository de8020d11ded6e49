"""Compares the headers of a series of classic CT slices."""

import dataclasses
from collections.abc import Iterable, MutableSequence, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian

from common.errors import UserError

# The length of a value in explicit VR has 32 bits and is even.
_MOST_BYTES = (1 << 32) - 2

# A multi-frame file has one value of these for all frames.
_ALIKE = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "StudyInstanceUID"),
    *("SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "SamplesPerPixel"),
    *("PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored"),
    *("HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
)


@dataclasses.dataclass(kw_only=True)
class SliceSurvey:
    """The attributes that all slices share, and those in which they differ.

    Attributes:
      charset: character sets of the texts, as pydicom names them.
      same: elements that all slices have with the same value.
      seen: tags that at least one slice has.
      lossy: whether the pixels of any slice were compressed with loss.
      content: the earliest ContentDate and ContentTime, as text.
      kinds: FrameType of the slices, each once, in order.
      places: ImagePositionPatient, mm, of each slice; None if a slice has none.
      axes: ImageOrientationPatient of each slice; None if a slice has none.
      sources: SOPClassUID by SOPInstanceUID of the source images.
    """

    charset: str | MutableSequence[str]
    same: dict[BaseTag, DataElement | RawDataElement]
    seen: set[BaseTag]
    lossy: bool = False
    content: tuple[str, str] = ("", "")
    kinds: list[list[str]] = dataclasses.field(default_factory=list)
    places: list[list[float] | None] = dataclasses.field(default_factory=list)
    axes: list[list[float] | None] = dataclasses.field(default_factory=list)
    sources: dict[str, str] = dataclasses.field(default_factory=dict)

    def agrees(self, names: Iterable[str]) -> bool:
        """Returns whether all slices agree on these attributes, or all lack them."""
        return all(
            Tag(name) in self.same or Tag(name) not in self.seen for name in names
        )

    def item(self, elements: Iterable[DataElement | RawDataElement] = ()) -> Dataset:
        """Returns a dataset that writes the slices' elements as unchanged bytes."""
        data = Dataset(parent_encoding=self.charset)
        data.set_original_encoding(False, True, self.charset)
        for element in elements:
            data[element.tag] = element
        return data

    def ranks(self) -> list[int] | list[None]:
        """Returns the slices' ranks along the first normal, from 1.

        All are None if one is unknown.
        """
        axes = self.axes[0]
        if axes is None or None in self.axes or None in self.places:
            return [None] * len(self.places)
        normal = np.cross(axes[:3], axes[3:])
        heights = np.asarray(self.places, np.float64) @ normal
        return (np.unique(heights, return_inverse=True)[1] + 1).tolist()


def survey_slices(paths: Sequence[Path], pixels: IO[bytes]) -> SliceSurvey:
    """Compares slices, and writes their pixels to a file in the same pass.

    Args:
      paths: the slices.
      pixels: receives the stored values, one slice after the other.

    Raises:
      UserError: The pixels exceed a DICOM file, or the slices differ in an attribute of
        which a multi-frame file has one.
      ValueError: There are no slices, or they are not encoded as 16 bits, little
        endian.
    """
    if not paths:
        raise ValueError("no slices to join")
    first = pydicom.dcmread(paths[0], stop_before_pixels=True)
    survey = SliceSurvey(
        charset=first.original_character_set,
        same=dict(first.items()),
        seen=set(first.keys()),
    )
    for path in paths:
        data = pydicom.dcmread(path)
        if data.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian:
            raise ValueError(f"{path}: encoded as {data.file_meta.TransferSyntaxUID}")
        stored = data.PixelData
        del data.PixelData
        _compare(survey, data)
        unlike = [name for name in _ALIKE if not survey.agrees([name])]
        if unlike:
            raise UserError(
                f"{path}: another {unlike[0]} than in {paths[0].name}; a multi-frame "
                "file has one for all frames. Write a classic series."
            )
        size = data.Rows * data.Columns * 2
        if len(stored) != size:
            raise ValueError(f"{path}: {len(stored)} bytes of pixels, not {size}")
        if size * len(paths) > _MOST_BYTES:
            raise UserError(
                f"{path}: {len(paths)} slices of {data.Rows} x {data.Columns} are more "
                "than the 4 GiB that one DICOM file holds. Write a classic series."
            )
        pixels.write(stored)
    return survey


def _compare(survey: SliceSurvey, data: Dataset) -> None:
    """Adds a slice to the survey."""
    # Compare first, while elements are bytes: pydicom parses elements on access.
    survey.seen.update(data.keys())
    for tag, element in list(survey.same.items()):
        other = data.get_item(tag) if tag in data else None
        if other is None or (other.VR, other.value) != (element.VR, element.value):
            del survey.same[tag]
    survey.lossy |= data.get("LossyImageCompression") == "01"
    content = str(data.get("ContentDate") or ""), str(data.get("ContentTime") or "")
    if all(content) and (content < survey.content or not all(survey.content)):
        survey.content = content
    if (kind := frame_type(data)) not in survey.kinds:
        survey.kinds.append(kind)
    for source in data.get("SourceImageSequence") or ():
        survey.sources[source.ReferencedSOPInstanceUID] = source.ReferencedSOPClassUID
    survey.places.append(_numbers(data, "ImagePositionPatient", 3))
    survey.axes.append(_numbers(data, "ImageOrientationPatient", 6))


def _numbers(data: Dataset, name: str, count: int) -> list[float] | None:
    """Returns an attribute's numbers; None without it or with another count."""
    values = data.get(name)
    if values is None or not isinstance(values, Sequence) or len(values) != count:
        return None
    return [float(value) for value in values]


def frame_type(data: Dataset) -> list[str]:
    """Returns the four values of FrameType, C.8.16.1; the second is always PRIMARY.

    Vendors choose the values of a classic ImageType after the third.
    """
    kind = data.get("ImageType") or []
    values = [kind] if isinstance(kind, str) else list(kind)
    first, _, flavour = (values + [""] * 3)[:3]
    return [first or "DERIVED", "PRIMARY", flavour or "VOLUME", "NONE"]
