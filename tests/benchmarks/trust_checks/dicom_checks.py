"""Checks of a written DICOM slice, with pydicom alone."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from tests.benchmarks.trust_checks.running import SHIFT_HU

# HU are written as whole numbers.
_ROUNDING = 0.51
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation")
_KEPT = (
    *("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientPosition"),
    *("SpiralPitchFactor", "RevolutionTime", "TotalCollimationWidth"),
    *("VOILUTFunction", "WindowCenterWidthExplanation"),
    *("LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_NAMES = ("PatientName", "ReferringPhysicianName")


class Frame(NamedTuple):
    """A slice of a multi-frame file: its position and its HU."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    hu: np.ndarray


def read_dicom(path: Path) -> FileDataset:
    """Reads a data set without warnings about its content."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in data.file_meta:
            data.file_meta.TransferSyntaxUID = UID(data.original_encoding and _IMPLICIT)
        return data


_IMPLICIT = "1.2.840.10008.1.2"


def hu_of(data: FileDataset) -> np.ndarray:
    """Returns the HU of a classic slice."""
    slope = float(data.get("RescaleSlope", 1))
    return data.pixel_array.astype(np.float64) * slope + float(data.RescaleIntercept)


def hu_problems(task: str, got: np.ndarray, want: np.ndarray) -> list[str]:
    """Returns what is wrong with a task's HU; `want` is its input, NaN is padding."""
    if got.shape != want.shape:
        return [f"shape {got.shape}, right {want.shape}"]
    inside = np.isfinite(want)
    problems = []
    outside = np.unique(got[~inside])
    if len(outside) and (len(outside) > 1 or outside[0] > -1024):
        problems.append(
            f"padding became {len(outside)} values up to {outside[-1]:g} HU"
        )
    change = got[inside] - want[inside]
    if task == "denoise":
        # Where the values end lies what may be clipped or taken for padding.
        free = want[inside] > -1024
        worst = float(np.abs(change[free] - SHIFT_HU).max())
        if worst > _ROUNDING:
            problems.append(f"HU off by up to {worst:.4g}")
    elif task == "simulate":
        # Noise: it has no mean to speak of, and there is some.
        mean, spread = float(change.mean()), float(change.std())
        if abs(mean) > 15 or not 1 < spread < 300:
            problems.append(f"noise of mean {mean:.3g} and spread {spread:.3g} HU")
    return problems


def slice_problems(task: str, source: Path, result: Path, want: np.ndarray) -> list:
    """Returns what is wrong with a classic slice that a task wrote."""
    before, after = read_dicom(source), read_dicom(result)
    try:
        got = hu_of(after)
    except (AttributeError, ValueError) as error:
        return [f"pixels cannot be read: {error}"]
    return [
        *hu_problems(task, got, want),
        *_header_problems(before, after),
        *geometry_problems(before, after),
    ]


def geometry_problems(before: Dataset, after: Dataset) -> list[str]:
    """Returns the changed elements of a slice's geometry; absent ones stay absent."""
    problems, rewritten = [], []
    for keyword in _GEOMETRY:
        old, new = _text(before, keyword), _text(after, keyword)
        if old == new:
            continue
        if old and _numbers(before, keyword) == _numbers(after, keyword):
            rewritten.append(keyword)
        else:
            problems.append(f"{keyword} {new or 'absent'}, was {old or 'absent'}")
    old, new = _numbers(before, "PixelSpacing"), _numbers(after, "PixelSpacing")
    known = len(old) == 2 and min(old) > 0
    if known and not np.array_equal(old, new):
        problems.append(f"PixelSpacing {new}, was {old}")
    if not known and len(new) == 2 and min(new) > 0:
        problems.append(f"PixelSpacing invented: {new}")
    if not _text(before, "SliceThickness") and _text(after, "SliceThickness"):
        problems.append(f"SliceThickness invented: {_text(after, 'SliceThickness')}")
    if rewritten:
        problems.append(f"same numbers in other text: {', '.join(rewritten)}")
    return problems


def _header_problems(before: FileDataset, after: FileDataset) -> list[str]:
    problems = []
    for keyword in _KEPT:
        old, new = before.get(keyword), after.get(keyword)
        if old not in (None, "") and old != new:
            problems.append(f"{keyword} {new!r}, was {old!r}")
    for keyword in _NAMES:
        if keyword in before and not _same_name(before, after, keyword):
            problems.append(
                f"{keyword} {after.get(keyword)!s}, was {before[keyword]!s}"
            )
    earlier = before.get("DerivationDescription", "")
    if earlier and not (
        earlier in after.DerivationDescription
        and after.DerivationDescription != earlier
    ):
        problems.append("DerivationDescription: the earlier one is not appended to")
    dose, phantom = "CTDIvol" in after, "CTDIPhantomTypeCodeSequence" in after
    if dose != phantom:
        problems.append(f"CTDIvol {dose}, its phantom {phantom}: both or neither")
    if _lossy(before) and after.get("LossyImageCompression") != "01":
        problems.append("LossyImageCompression is not set")
    if after.get("SOPInstanceUID") == before.get("SOPInstanceUID"):
        problems.append("SOPInstanceUID is the input's")
    return problems


def _same_name(before: FileDataset, after: FileDataset, keyword: str) -> bool:
    """Compares letters, or bytes where no character set defines the letters."""
    old, new = before[keyword].value, after[keyword].value
    if before.get("SpecificCharacterSet"):
        return str(old) == str(new) or (not old and not new)
    return _bytes(old) == _bytes(new)


def _bytes(value: object) -> bytes:
    original = getattr(value, "original_string", value)
    return original if isinstance(original, bytes) else str(original or "").encode()


def _lossy(data: FileDataset) -> bool:
    lossy = {"1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"}
    syntax = str(data.file_meta.get("TransferSyntaxUID", ""))
    return data.get("LossyImageCompression") == "01" or syntax in lossy


def _text(data: Dataset, keyword: str) -> str:
    """Returns a value as the file stores it."""
    if keyword not in data or data[keyword].value in (None, ""):
        return ""
    value = data[keyword].value
    values = [value] if isinstance(value, str | float) else list(value)
    return "\\".join(str(getattr(v, "original_string", v)) for v in values)


def _numbers(data: Dataset, keyword: str) -> list[float]:
    try:
        return [float(part) for part in _text(data, keyword).split("\\") if part]
    except (TypeError, ValueError):
        return []


def frames_of(path: Path) -> Iterator[Frame]:
    """Returns the slices of a file, classic or multi-frame."""
    data = read_dicom(path)
    if "PerFrameFunctionalGroupsSequence" not in data:
        yield Frame(
            tuple(map(float, data.ImagePositionPatient)),
            tuple(map(float, data.ImageOrientationPatient)),
            hu_of(data),
        )
        return
    pixels = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    shared = data.SharedFunctionalGroupsSequence[0]
    for image, own in zip(pixels, data.PerFrameFunctionalGroupsSequence, strict=True):
        rescale = _group(own, shared, "PixelValueTransformationSequence")
        plane = _group(own, shared, "PlaneOrientationSequence")
        place = _group(own, shared, "PlanePositionSequence")
        slope, offset = float(rescale.RescaleSlope), float(rescale.RescaleIntercept)
        yield Frame(
            tuple(map(float, place.ImagePositionPatient)),
            tuple(map(float, plane.ImageOrientationPatient)),
            image * slope + offset,
        )


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    return (own if keyword in own else shared)[keyword][0]
