"""Joins classic CT slices to one multi-frame file: Legacy Converted Enhanced CT.

DICOM PS3.3, A.70. The attributes of a slice go to the functional groups (C.7.6.16);
texts stay texts. An attribute is written once if all slices agree, else per frame.
Attributes of patient, study, series and equipment stay at the top. Attributes without a
place in a multi-frame object, and private ones, go to the Unassigned Converted
Attributes, shared or per frame, where a converter to classic slices finds them.
"""

import datetime
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from ipv2.ct_io.dicom_header import new_uid
from ipv2.ct_io.slice_survey import SliceSurvey, frame_type, survey_slices

# Functional groups, and the classic attributes that keep their names in them.
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "PixelMeasuresSequence": (
        *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    ),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": (
        *("RescaleIntercept", "RescaleSlope", "RescaleType"),
    ),
    "FrameVOILUTSequence": (
        *("WindowCenter", "WindowWidth"),
        *("WindowCenterWidthExplanation", "VOILUTFunction"),
    ),
    "IrradiationEventIdentificationSequence": ("IrradiationEventUID",),
    "DerivationImageSequence": (
        *("DerivationDescription", "DerivationCodeSequence", "SourceImageSequence"),
    ),
    "CTImageFrameTypeSequence": ("ImageType",),
}
_GROUP_OF = {Tag(name): group for group, names in _GROUPS.items() for name in names}
# The whole object gets new values of these.
_DROPPED = frozenset(
    Tag(name)
    for name in (
        *("SOPClassUID", "SOPInstanceUID", "InstanceCreationDate", "PixelData"),
        *("InstanceCreationTime", "NumberOfFrames"),
    )
)
# Attributes of modules of the whole object (Table A.70-1): these groups without
# _NOT_TOP, plus _TOP.
_TOP_GROUPS = (0x0008, 0x0010, 0x0012, 0x0028, 0x0032, 0x0038, 0x0040, 0x2050)
_NOT_TOP = frozenset(
    Tag(name)
    for name in (
        *("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"),
        *("ReferencedImageSequence", "AnatomicRegionSequence"),
        "PrimaryAnatomicStructureSequence",
    )
)
_TOP = frozenset(
    Tag(name)
    for name in (
        *("BodyPartExamined", "ProtocolName", "PatientPosition", "DeviceSerialNumber"),
        *("DeviceUID", "GantryID", "SoftwareVersions", "SpatialResolution"),
        *("DateOfLastCalibration", "TimeOfLastCalibration", "ContrastBolusAgent"),
        *("ContrastBolusRoute", "ContrastBolusVolume", "ContrastBolusStartTime"),
        *("ContrastBolusStopTime", "ContrastBolusTotalDose", "ContrastFlowRate"),
        *("ContrastFlowDuration", "ContrastBolusIngredient", "StudyInstanceUID"),
        *("ContrastBolusIngredientConcentration", "SeriesInstanceUID", "StudyID"),
        *("SeriesNumber", "AcquisitionNumber", "Laterality", "FrameOfReferenceUID"),
        *("PositionReferenceIndicator", "ImageComments"),
    )
)
# Type 2: archives require these, but they may be empty.
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"),
    *("StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
    *("SeriesNumber", "Manufacturer", "PositionReferenceIndicator"),
)


def join_slices(
    paths: Sequence[Path], target: Path, *, source_series: str = ""
) -> None:
    """Writes classic CT slices as one Legacy Converted Enhanced CT file.

    Each frame keeps the reference to the source image of its slice, in its Derivation
    Image group. The slices themselves are temporary files, so they are not named as
    conversion source. Frames are in the order of the slices. If all slices state
    position and orientation, a dimension (C.7.6.17) numbers them from 1 by their
    position along the normal.

    Memory holds the headers; the pixels pass through a temporary file beside the
    target.

    Args:
      paths: the slices: explicit little endian, 16 bits, of one series and one matrix.
      target: the file, replaced if it exists; its folder must exist.
      source_series: SeriesInstanceUID of the source images, which are of the same
        study. If it is given, SourceImageEvidenceSequence lists the source images, as
        the standard requires (C.8.16.2).

    Raises:
      UserError: The pixels exceed the 4 GiB of a DICOM file, or the slices differ in an
        attribute of which a multi-frame file has one: patient, series, matrix, encoding
        and padding of pixels, character set.
      ValueError: There are no slices, or their encoding differs from the above.
      OSError: A file cannot be read or written.
    """
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryFile(dir=target.parent) as pixels,
    ):
        # pydicom warns of values that break the standard; they are passed on.
        warnings.simplefilter("ignore")
        survey = survey_slices(paths, pixels)
        data = _whole(survey)
        if source_series and survey.sources:
            _add_evidence(data, survey.sources, source_series)
        ranks = survey.ranks()
        if None not in ranks:
            _add_dimension(data)
        shared = [group for group in _GROUPS if survey.agrees(_GROUPS[group])]
        others = [group for group in _GROUPS if group not in shared]
        first = survey.item(survey.same.values())
        groups = _groups(survey, first, shared)
        tags = [tag for tag in survey.same if _home(tag) == "unassigned"]
        if tags:
            groups.UnassignedSharedConvertedAttributesSequence = [
                survey.item(_with_creators(tags, first))
            ]
        data.SharedFunctionalGroupsSequence = [groups]
        data.PerFrameFunctionalGroupsSequence = [
            _frame(survey, header, others, rank)
            for header, rank in zip(_headers(paths), ranks, strict=True)
        ]
        pixels.seek(0)
        data.PixelData = pixels
        data["PixelData"].VR = "OW"
        data.save_as(target, enforce_file_format=True)


def _headers(paths: Sequence[Path]) -> Iterator[Dataset]:
    for path in paths:
        yield pydicom.dcmread(path, stop_before_pixels=True)


def _home(tag: BaseTag) -> str:
    """Returns an attribute's place: '', 'top', 'unassigned', or a functional group."""
    if tag in _DROPPED or tag.element == 0:
        return ""
    if tag in _GROUP_OF:
        return _GROUP_OF[tag]
    whole = tag.group in _TOP_GROUPS and tag not in _NOT_TOP
    return "top" if whole or tag in _TOP else "unassigned"


def _whole(survey: SliceSurvey) -> Dataset:
    """Returns the attributes of the whole object, without functional groups."""
    data = survey.item(e for tag, e in survey.same.items() if _home(tag) == "top")
    for name in _MAY_BE_EMPTY:
        if name not in data:
            setattr(data, name, None)
    now = datetime.datetime.now()
    moment = (now.strftime("%Y%m%d"), now.strftime("%H%M%S"))
    data.SOPClassUID = LegacyConvertedEnhancedCTImageStorage
    data.SOPInstanceUID = new_uid()
    data.InstanceCreationDate, data.InstanceCreationTime = moment
    content = survey.content if all(survey.content) else moment
    data.ContentDate, data.ContentTime = content
    data.InstanceNumber = 1
    data.NumberOfFrames = len(survey.places)
    if survey.lossy:
        data.LossyImageCompression = "01"
    firsts = {kind[0] for kind in survey.kinds}
    data.ImageType = [
        *(firsts if len(firsts) == 1 else ["MIXED"]),
        *survey.kinds[0][1:],
    ]
    _describe_pixels(data)
    data.PresentationLUTShape = "IDENTITY"
    data.AcquisitionContextSequence = []
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta = meta
    return data


def _add_evidence(data: Dataset, sources: Mapping[str, str], series: str) -> None:
    """Lists the source images, for archives that look up an object's references."""
    instances = []
    for instance, sop_class in sources.items():
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = instance
        instances.append(item)
    of_series = Dataset()
    of_series.SeriesInstanceUID = series
    of_series.ReferencedSOPSequence = instances
    study = Dataset()
    study.StudyInstanceUID = data.StudyInstanceUID
    study.ReferencedSeriesSequence = [of_series]
    data.SourceImageEvidenceSequence = [study]


def _describe_pixels(data: Dataset) -> None:
    """Adds the attributes that accompany ImageType, C.8.16.2."""
    data.PixelPresentation = "MONOCHROME"
    data.VolumetricProperties = "VOLUME"
    data.VolumeBasedCalculationTechnique = "NONE"


def _add_dimension(data: Dataset) -> None:
    """Adds a dimension that numbers frames by their position, C.7.6.17."""
    organization = Dataset()
    organization.DimensionOrganizationUID = new_uid()
    data.DimensionOrganizationSequence = [organization]
    index = Dataset()
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer = Tag("ImagePositionPatient")
    index.FunctionalGroupPointer = Tag("PlanePositionSequence")
    index.DimensionDescriptionLabel = "position along the normal"
    data.DimensionIndexSequence = [index]


def _groups(survey: SliceSurvey, slice_: Dataset, groups: Iterable[str]) -> Dataset:
    """Returns functional groups with the attributes of a slice, or of all slices."""
    found = survey.item()
    for group in groups:
        item = survey.item(
            slice_.get_item(name) for name in _GROUPS[group] if name in slice_
        )
        if group == "CTImageFrameTypeSequence":
            item = survey.item()
            item.FrameType = frame_type(slice_)
            _describe_pixels(item)
        if group == "DerivationImageSequence" and len(item):
            _complete_derivation(item)
        if len(item):
            setattr(found, group, [item])
    return found


def _complete_derivation(item: Dataset) -> None:
    """Adds the attributes that a derivation requires, C.7.6.16.2.6, if they lack."""
    if "SourceImageSequence" not in item:
        item.SourceImageSequence = []
    if "DerivationCodeSequence" not in item:
        code = Dataset()
        code.CodeValue = "110001"
        code.CodingSchemeDesignator = "DCM"
        code.CodeMeaning = "Image Processing"
        item.DerivationCodeSequence = [code]


def _frame(
    survey: SliceSurvey, header: Dataset, groups: Iterable[str], rank: int | None
) -> Dataset:
    """Returns an item of PerFrameFunctionalGroupsSequence."""
    found = _groups(survey, header, groups)
    content = survey.item()
    moment = header.get("AcquisitionDateTime") or (
        f"{header.get('AcquisitionDate') or ''}{header.get('AcquisitionTime') or ''}"
        if header.get("AcquisitionDate")
        else ""
    )
    if moment:
        content.FrameAcquisitionDateTime = moment
    number = str(header.get("AcquisitionNumber") or "")
    if number.isdigit() and int(number) < 1 << 16:
        content.FrameAcquisitionNumber = int(number)
    if rank is not None:
        content.DimensionIndexValues = [rank]
    found.FrameContentSequence = [content]
    tags = [
        tag
        for tag in header.keys()
        if tag not in survey.same and _home(tag) in ("top", "unassigned")
    ]
    # Type 2: empty if all attributes are shared, as in a file of one frame.
    found.UnassignedPerFrameConvertedAttributesSequence = (
        [survey.item(_with_creators(tags, header))] if tags else []
    )
    return found


def _with_creators(
    tags: Sequence[BaseTag], data: Dataset
) -> Iterator[DataElement | RawDataElement]:
    """Yields the elements; private ones with their private creator."""
    for tag in tags:
        yield data.get_item(tag)
        if tag.is_private and not tag.is_private_creator:
            creator = tag.private_creator
            if creator in data:
                yield data.get_item(creator)
