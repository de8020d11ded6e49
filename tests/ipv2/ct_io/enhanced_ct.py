"""Multi-frame CT files for tests, written with pydicom, independent of the readers."""

import itertools

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


def item(**attributes):
    """A dataset of attributes."""
    data = Dataset()
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


def make_enhanced(
    stored,
    *,
    positions=None,
    slopes=("1",),
    intercepts=("-1024",),
    sop_class=EnhancedCTImageStorage,
    spacing=("0.70", "0.80"),
    charset="ISO_IR 100",
    patient="Müller^Jörg",
    signed=False,
):
    """An Enhanced CT dataset, explicit little endian.

    Args:
      stored: values (frames, rows, columns) before rescale.
      positions: text of ImagePositionPatient for each frame; 2.50 mm apart if None.
      slopes: of each frame, repeated.
      intercepts: of each frame, repeated.
      sop_class: of the object.
      spacing: text of PixelSpacing.
      charset: SpecificCharacterSet.
      patient: PatientName.
      signed: whether values are int16, else uint16.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    count, rows, columns = stored.shape
    data = item(
        SpecificCharacterSet=charset,
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        SOPClassUID=sop_class,
        SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        Modality="CT",
        PatientName=patient,
        PatientID="P1",
        StudyInstanceUID="1.2.9",
        SeriesInstanceUID="1.2.3",
        FrameOfReferenceUID="1.2.8",
        InstanceNumber=7,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=rows,
        Columns=columns,
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=int(signed),
        NumberOfFrames=count,
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        DimensionOrganizationSequence=[item(DimensionOrganizationUID="1.2.77")],
    )
    data.file_meta = meta
    data.SharedFunctionalGroupsSequence = [_shared(spacing)]
    positions = positions or [f"-5.00\\7.0\\{2.5 * i - 100:.2f}" for i in range(count)]
    data.PerFrameFunctionalGroupsSequence = [
        _frame(index, position, slope, intercept)
        for index, position, slope, intercept in zip(
            range(count),
            positions,
            itertools.cycle(slopes),
            itertools.cycle(intercepts),
        )
    ]
    data.PixelData = stored.astype(np.int16 if signed else np.uint16).tobytes()
    return data


def _shared(spacing):
    reconstruction = item(ConvolutionKernel="B30f", ReconstructionDiameter="350")
    return item(
        PixelMeasuresSequence=[item(PixelSpacing=list(spacing), SliceThickness="2.50")],
        PlaneOrientationSequence=[
            item(ImageOrientationPatient=["1.000", "0", "0", "0", "1.000", "0"])
        ],
        CTImageFrameTypeSequence=[
            item(FrameType=["ORIGINAL", "PRIMARY", "AXIAL", "NONE"])
        ],
        CTReconstructionSequence=[reconstruction],
        CTXRayDetailsSequence=[item(KVP="120", FilterType="WEDGE")],
        CTAcquisitionDetailsSequence=[item(GantryDetectorTilt=0.0, TableHeight=151.5)],
        FrameAnatomySequence=[item(FrameLaterality="U", AnatomicRegionSequence=[])],
    )


def _frame(index, position, slope, intercept):
    return item(
        FrameContentSequence=[
            item(
                FrameAcquisitionNumber=3,
                FrameAcquisitionDateTime=f"202601021530{index % 60:02d}.25+0100",
                DimensionIndexValues=[index + 1],
                FrameComments=f"frame {index}",
            )
        ],
        PlanePositionSequence=[item(ImagePositionPatient=position)],
        PixelValueTransformationSequence=[
            item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
        ],
        FrameVOILUTSequence=[item(WindowCenter="40.0", WindowWidth=f"{400 + index}")],
        CTExposureSequence=[
            item(
                ExposureTimeInms=500.0,
                XRayTubeCurrentInmA=250.4 + index,
                ExposureInmAs=125.25,
                CTDIvol=8.123456789,
            )
        ],
    )
