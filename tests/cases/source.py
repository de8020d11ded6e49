"""The plain series behind every case: a synthetic or a real chest.

The chest is `tests.oracles.thorax` with noise that stays above -1024 HU, so that no
pixel looks like padding, and a mark that tells the slices and the sides apart.
"""

import copy
import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from tests.oracles.thorax import thorax

SIZE = 128
COUNT = 6
STEP_MM = 2.5
PIXEL_MM = 2.75
ORIGIN_MM = (-174.6, -171.9, -98.5)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The plain series.

    Attributes:
      hu: whole HU above -1024, (slices, rows, columns).
      headers: a dataset of each slice, pixels included.
    """

    hu: np.ndarray
    headers: tuple[FileDataset, ...]

    def slices(self) -> list[FileDataset]:
        """New copies of the datasets, to be changed."""
        return copy.deepcopy(list(self.headers))


def chest(count: int = COUNT, *, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """HU (slices, rows, columns) as whole numbers from -1020 to 1500."""
    noise = np.random.default_rng(seed).integers(-20, 21, (count, size, size))
    hu = np.rint(thorax(size).hu).astype(int) + noise
    hu[:, size // 2 : size // 2 + 4, size // 2 - 2 : size // 2 + 2] = 0  # water
    for index in range(count):  # which slice, and which side
        hu[index, 4:8, 6:14] = 100 + 10 * (index % 130)
    return hu


def synthetic(count: int = COUNT, *, size: int = SIZE, seed: int = 0) -> Source:
    """The synthetic chest as a classic CT series."""
    hu = chest(count, size=size, seed=seed)
    study, series, frame = (generate_uid() for _ in range(3))
    headers = []
    for index, image in enumerate(hu):
        data = _header(index, study=study, series=series, frame=frame)
        store(data, image, bits=12)
        headers.append(data)
    return Source(hu=hu, headers=tuple(headers))


def real(folder: Path, *, size: int = SIZE) -> Source:
    """Returns middle slices of a real series, subsampled to the size of the others."""
    found = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    found = [data for data in found if "ImagePositionPatient" in data]
    found.sort(key=lambda data: float(data.ImagePositionPatient[2]))
    start = max(len(found) // 2 - COUNT // 2, 0)
    headers, images = [], []
    for data in found[start : start + COUNT]:
        data.remove_private_tags()
        every = data.Rows // size
        image = decoded(data)[::every, ::every][:size, :size]
        data.PixelSpacing = [float(value) * every for value in data.PixelSpacing]
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        images.append(np.rint(image).astype(int).clip(-1023, 3071))
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        store(data, images[-1], bits=12)
        headers.append(data)
    return Source(hu=np.array(images), headers=tuple(headers))


def store(
    data: FileDataset,
    hu: np.ndarray,
    *,
    slope: float = 1,
    intercept: float = -1024,
    signed: bool = False,
    bits: int = 16,
    allocated: int = 16,
) -> np.ndarray:
    """Puts HU into a dataset; returns what they are after rounding to stored values.

    NaN, which is padding, must be set by the caller.
    """
    stored = np.rint((hu - intercept) / slope).astype(int)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    stored = stored.clip(low, high - 1)
    put(data, stored, signed=signed, bits=bits, allocated=allocated)
    data.RescaleSlope, data.RescaleIntercept = f"{slope:g}", f"{intercept:g}"
    return stored * slope + intercept


def put(
    data: FileDataset,
    stored: np.ndarray,
    *,
    signed: bool = False,
    bits: int = 16,
    allocated: int = 16,
) -> None:
    """Puts stored values and their encoding attributes into a dataset."""
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored = allocated, bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(signed)
    kind = f"<{'i' if signed else 'u'}{allocated // 8}"
    data.PixelData = np.ascontiguousarray(stored).astype(kind).tobytes()
    data["PixelData"].VR = "OB" if allocated == 8 else "OW"


def decoded(data: FileDataset) -> np.ndarray:
    """The HU of a dataset, by its own slope and intercept."""
    slope, intercept = float(data.RescaleSlope), float(data.RescaleIntercept)
    return data.pixel_array.astype(np.float64) * slope + intercept


def save(data: FileDataset, path: Path, **how: bool) -> None:
    """Writes a dataset, even with values that the standard forbids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(path, **how)


def _header(index: int, *, study: str, series: str, frame: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    x, y, z = ORIGIN_MM
    where = f"{z + STEP_MM * index:.3f}"
    for key, value in {
        **{"SpecificCharacterSet": "ISO_IR 100", "SOPClassUID": CTImageStorage},
        **{"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Modality": "CT"},
        **{"SOPInstanceUID": meta.MediaStorageSOPInstanceUID},
        **{"StudyDate": "20240102", "StudyTime": "101010", "AccessionNumber": "A1"},
        **{"SeriesDate": "20240102", "ContentDate": "20240102"},
        **{"ContentTime": "101011", "Manufacturer": "Maker", "StudyID": "1"},
        **{"ReferringPhysicianName": "", "SeriesDescription": "Thorax 2.5"},
        **{"PatientName": "Doe^Jane", "PatientID": "P1", "PatientBirthDate": ""},
        **{"PatientSex": "F", "PatientPosition": "HFS", "KVP": "120"},
        **{"SliceThickness": "2.5", "ConvolutionKernel": "B30f"},
        **{"StudyInstanceUID": study, "SeriesInstanceUID": series},
        **{"FrameOfReferenceUID": frame, "PositionReferenceIndicator": ""},
        **{"SeriesNumber": "2", "AcquisitionNumber": "1"},
        "InstanceNumber": str(index + 1),
        "ImagePositionPatient": [f"{x}", f"{y}", where],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "SliceLocation": where,
        "PixelSpacing": [f"{PIXEL_MM}", f"{PIXEL_MM}"],
        **{"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"},
        **{"WindowCenter": "-600", "WindowWidth": "1500", "RescaleType": "HU"},
    }.items():
        setattr(data, key, value)
    return data
