"""Enhanced CT: all slices as frames of one file, geometry in functional groups."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.uid import EnhancedCTImageStorage, generate_uid

from tests.cases.case import Build, Case, Truth
from tests.cases.source import Source, save, store

NAME = "enhanced.dcm"


def _item(**values: object) -> list[Dataset]:
    data = Dataset()
    for key, value in values.items():
        setattr(data, key, value)
    return [data]


def enhanced(
    source: Source,
    *,
    order: Sequence[int] = (),
    z_mm: Sequence[float] = (),
    intercepts: Sequence[float] = (),
    groups: bool = True,
) -> FileDataset:
    """The source as one multi-frame dataset.

    Args:
      source: its slices.
      order: of the frames; as they lie if not given.
      z_mm: of each slice, in place of the source's.
      intercepts: of each frame, so that one for all would be wrong.
      groups: whether functional groups say where frames lie.
    """
    slices = source.slices()
    order = order or range(len(slices))
    frames, pixels = [], []
    for place, index in enumerate(order):
        data = slices[index]
        intercept = intercepts[place] if intercepts else -1024
        store(data, source.hu[index], intercept=intercept)
        x, y, z = data.ImagePositionPatient
        where = f"{z_mm[index]:g}" if z_mm else str(z)
        frame = Dataset()
        frame.FrameContentSequence = _item(
            StackID="1",
            InStackPositionNumber=index + 1,
            DimensionIndexValues=[1, index + 1],
        )
        frame.PlanePositionSequence = _item(ImagePositionPatient=[x, y, where])
        frame.PixelValueTransformationSequence = _item(
            RescaleIntercept=f"{intercept:g}", RescaleSlope="1", RescaleType="HU"
        )
        frames.append(frame)
        pixels.append(data.PixelData)
    whole = slices[0]
    if groups:
        _shared(whole)
        whole.PerFrameFunctionalGroupsSequence = frames
    whole.PixelData = b"".join(pixels)
    whole.NumberOfFrames = len(frames)
    for keyword in _MOVED:
        if keyword in whole:
            delattr(whole, keyword)
    whole.SOPClassUID = EnhancedCTImageStorage
    whole.SOPInstanceUID = generate_uid()
    whole.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    whole.InstanceNumber = "1"
    return whole


def _shared(whole: FileDataset) -> None:
    """Returns shared groups, and the other attributes that enhanced CT requires."""
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(
        PixelSpacing=whole.PixelSpacing, SliceThickness=whole.SliceThickness
    )
    shared.PlaneOrientationSequence = _item(
        ImageOrientationPatient=whole.ImageOrientationPatient
    )
    shared.FrameVOILUTSequence = _item(WindowCenter="-600", WindowWidth="1500")
    shared.CTImageFrameTypeSequence = _item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    whole.SharedFunctionalGroupsSequence = [shared]
    uid = generate_uid()
    whole.DimensionOrganizationSequence = _item(DimensionOrganizationUID=uid)
    whole.DimensionIndexSequence = [
        *_item(
            DimensionOrganizationUID=uid,
            DimensionIndexPointer=0x00209056,
            FunctionalGroupPointer=0x00209111,
        ),
        *_item(
            DimensionOrganizationUID=uid,
            DimensionIndexPointer=0x00209057,
            FunctionalGroupPointer=0x00209111,
        ),
    ]
    for key, value in {
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "ContentQualification": "PRODUCT",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "IDENTITY",
        "AcquisitionDateTime": "20240102101010",
        "AcquisitionDuration": 1.5,
    }.items():
        setattr(whole, key, value)


# In functional groups, and not beside them.
_MOVED = (
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation"),
    *("PixelSpacing", "SliceThickness", "RescaleIntercept", "RescaleSlope"),
    *("RescaleType", "WindowCenter", "WindowWidth"),
)


def _file(**how: object) -> Build:
    def build(folder: Path, source: Source) -> Truth:
        save(enhanced(source, **how), folder / NAME)
        order = how.get("order") or range(len(source.hu))
        return {NAME: source.hu[list(order)].astype(np.float64)}

    return build


_READ: dict[str, Build] = {
    "frames": _file(),
    "frames_shuffled": _file(order=(3, 0, 5, 1, 4, 2)),
    "frames_own_rescale": _file(intercepts=[-1024.0 - 10 * i for i in range(6)]),
    "frames_uneven": _file(z_mm=[-100, -97.5, -94.5, -92, -90, -87.5]),
}
MULTIFRAME = (
    *(
        Case(name=name, build=build, tasks=("denoise", "simulate"))
        for name, build in _READ.items()
    ),
    *(
        Case(
            name=f"{name}_as_frames",
            build=build,
            keys={"data.multiframe": True},
        )
        for name, build in _READ.items()
    ),
    Case(
        name="frames_without_groups",
        build=_file(groups=False),
        outcome="refused",
        says=r"(?i)frame|ImagePositionPatient",
    ),
)
