"""Converts functional groups of multi-frame CT to attributes of a classic slice.

DICOM PS3.3, C.7.6.16 and C.8.15.3. Values without an attribute in classic CT (A.3) are
left out.
"""

from collections.abc import Mapping
from typing import cast

from pydicom import DataElement, Dataset, Sequence
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

# They describe the whole object or list the references of all frames: useless in a
# slice, and as long as the series.
DROPPED = (
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
"""Attributes of a multi-frame object that its slices do not get."""

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
# Attributes with another name in classic CT: group, multi-frame name, classic name, and
# the factor from the multi-frame to the classic unit; None: copied without scaling.
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


def classic_attributes(groups: Dataset) -> Dataset:
    """Returns the classic attributes of an item of functional groups.

    Values and texts keep their encoding. Exposures, which are whole numbers in classic
    CT (ms, mA, mAs, and uAs besides mAs), are rounded.

    Args:
      groups: an item of SharedFunctionalGroupsSequence or of
        PerFrameFunctionalGroupsSequence, as read from a file.

    Returns:
      The attributes that the item states.

    Raises:
      TypeError, ValueError: A value that must be a number is none.
    """
    found = Dataset()
    for name, wanted in _SAME_NAMES.items():
        for item in groups.get(name) or ():
            names = None if wanted is None else {tag_for_keyword(n) for n in wanted}
            for tag in item.keys():
                # A frame's text is in the character set of the whole object.
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


def _join_derivations(items: Sequence | tuple[()], found: Dataset) -> None:
    """Adds the joined contents of the items of DerivationImageSequence."""
    texts = [str(text) for i in items if (text := i.get("DerivationDescription"))]
    if texts:
        found.DerivationDescription = "; ".join(texts)
    for name in ("DerivationCodeSequence", "SourceImageSequence"):
        joined = [item for outer in items for item in outer.get(name) or ()]
        if joined:
            setattr(found, name, joined)
