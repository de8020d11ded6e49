"""Small CT files for tests, written with pydicom, independent of the readers."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def stored_slice(index, *, size=16, low=0, high=4000):
    """Random stored values, as int32, the same for the same index."""
    return np.random.default_rng(index).integers(low, high, (size, size))


def make_slice(
    stored,
    *,
    position=(0.0, 0.0, 0.0),
    orientation=(1, 0, 0, 0, 1, 0),
    spacing=(0.7, 0.8),
    slope="1",
    intercept="-1024",
    series="1.2.3",
    description="axial",
    patient="P1",
    modality="CT",
    sop_class=CTImageStorage,
    signed=False,
    bits=12,
    instance=1,
    padding=None,
    padding_limit=None,
):
    """A CT slice as a pydicom dataset, explicit little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = sop_class
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Modality = modality
    data.PatientID = patient
    data.PatientName = "Müller^Jörg"
    data.StudyInstanceUID = "1.2.9"
    data.SeriesInstanceUID = series
    data.SeriesDescription = description
    data.FrameOfReferenceUID = "1.2.8"
    data.InstanceNumber = instance
    data.ImagePositionPatient = list(position)
    data.ImageOrientationPatient = list(orientation)
    data.PixelSpacing = list(spacing)
    data.SliceThickness = "2.5"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated = 16
    data.BitsStored = bits
    data.HighBit = bits - 1
    data.PixelRepresentation = int(signed)
    sign = "SS" if signed else "US"
    if padding is not None:
        data.add_new("PixelPaddingValue", sign, padding)
    if padding_limit is not None:
        data.add_new("PixelPaddingRangeLimit", sign, padding_limit)
    if slope is not None:
        data.RescaleIntercept = intercept
        data.RescaleSlope = slope
    # A nested sequence of undefined length, as scanners write them.
    inner = pydicom.Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.7"
    outer = pydicom.Dataset()
    outer.ReferencedImageSequence = [inner]
    data.ReferencedStudySequence = [outer]
    data["ReferencedStudySequence"].is_undefined_length = True
    outer["ReferencedImageSequence"].is_undefined_length = True
    outer.is_undefined_length_sequence_item = True
    inner.is_undefined_length_sequence_item = True
    data.PixelData = stored.astype(np.int16 if signed else np.uint16).tobytes()
    return data


def save(data, path):
    """Writes a dataset to a file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return Path(path)


def make_series(folder, count=5, *, step=2.5, start=-100.0, names=None, **tags):
    """An axial series; returns its HU as (slices, rows, columns), float32.

    The files' names run against the positions, so sorting by name gets it wrong.
    """
    hu = []
    size = tags.pop("size", 16)
    for index in range(count):
        stored = stored_slice(index, size=size)
        data = make_slice(
            stored,
            position=(-5.0, 7.0, start + step * index),
            instance=index + 1,
            **tags,
        )
        name = names[index] if names else f"IM{count - index:03d}"
        save(data, Path(folder) / name)
        hu.append(stored - 1024)
    return np.array(hu, np.float32)
