"""Places of slices: uneven, drifting, tilted, unknown; and sizes of pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from tests.cases.case import Build, Case, Truth
from tests.cases.source import Source
from tests.cases.writing import Edit, each, raw_text, setting, without, write

ALL = ("denoise", "simulate", "purify")
BOTH = ALL[:2]


def at(*z_mm: float, **extra: object) -> Build:
    """Slices at these places along z, and SliceLocation with them."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()[: len(z_mm)]
        for data, z in zip(slices, z_mm, strict=True):
            data.ImagePositionPatient[2] = data.SliceLocation = f"{z:g}"
            for key, value in extra.items():
                setattr(data, key, value)
        return write(folder, slices, source.hu[: len(z_mm)])

    return build


def steps(*gaps_mm: float) -> Build:
    """Slices with these distances."""
    return at(*np.concatenate([[-100.0], -100.0 + np.cumsum(gaps_mm)]))


def tilted(degrees: float, *, upright: bool = False) -> Build:
    """Rows tilted; positions along z as scanners do it, or along the normal."""
    angle = np.deg2rad(degrees)
    down = [0.0, np.cos(angle), -np.sin(angle)]
    normal = np.array([0.0, np.sin(angle), np.cos(angle)])

    def edit(data: FileDataset, index: int) -> None:
        data.ImageOrientationPatient = ["1", "0", "0", *(f"{v:.6f}" for v in down)]
        if upright:
            where = np.array([-174.6, -171.9, -98.5]) + 2.5 * index * normal
            data.ImagePositionPatient = [f"{value:.6f}" for value in where]
        else:
            data.GantryDetectorTilt = f"{degrees:g}"

    return each(edit)


def drifting(data: FileDataset, index: int) -> None:
    """Each slice is shifted by 0.14 mm to the side, 0.7 mm in all."""
    data.ImagePositionPatient[0] = (
        f"{float(data.ImagePositionPatient[0]) + 0.14 * index:.2f}"
    )


def opposite_location(data: FileDataset, index: int) -> None:
    """SliceLocation falls with z, as with some scanners."""
    data.SliceLocation = f"{-float(data.ImagePositionPatient[2]):g}"


def kept(indices: Sequence[int]) -> Build:
    """Some slices of the plain series."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        return write(folder, [slices[i] for i in indices], source.hu[list(indices)])

    return build


def same_place(folder: Path, source: Source) -> Truth:
    """Two slices at one position."""
    slices = source.slices()
    slices[3].ImagePositionPatient = slices[2].ImagePositionPatient
    return write(folder, slices, source.hu)


def spacing_text(text: str) -> Edit:
    """PixelSpacing with a given text."""
    return raw_text("PixelSpacing", text)


def only_imager(data: FileDataset, index: int) -> None:
    """The pixel size at the detector, which is not that in the patient."""
    data.ImagerPixelSpacing = data.PixelSpacing
    del data.PixelSpacing


_EVEN: dict[str, Build] = {
    "uneven_70_64_86": at(-318.9, -232.9, -168.9, -98.9, SliceThickness="5"),
    "uneven_10_12.5_7.5": steps(10, 12.5, 7.5),
    "uneven_20_percent": steps(2.5, 3, 2.5, 2, 2.5),
    "rounded_to_0.1": at(*(round(-100 + 0.625 * i, 1) for i in range(6))),
    "drift_0.7_mm": each(drifting),
    "tilt_3_degrees": tilted(3),
    "oblique": tilted(20, upright=True),
    "location_opposite": each(opposite_location),
    "location_missing": without("SliceLocation"),
}
_TURNED: dict[str, Build] = {
    "turned_by_180": setting(ImageOrientationPatient=["-1", "0", "0", "0", "-1", "0"]),
    "mirrored_x": setting(ImageOrientationPatient=["-1", "0", "0", "0", "1", "0"]),
    "negative_spacing_between": setting(SpacingBetweenSlices="-1"),
    "negative_spacing_single": setting(SpacingBetweenSlices="-1", count=1),
    "zero_thickness_single": setting(SliceThickness="0", count=1),
    "negative_thickness_single": setting(SliceThickness="-5", count=1),
    "single_slice": setting(count=1),
    "no_position_single": without("ImagePositionPatient", "SliceLocation", count=1),
    "no_orientation": without("ImageOrientationPatient"),
    "no_thickness": without("SliceThickness"),
    "empty_thickness": setting(SliceThickness=None),
}
_UNKNOWN: dict[str, Build] = {
    "spacing_missing": without("PixelSpacing"),
    "spacing_empty": setting(PixelSpacing=None),
    "spacing_0": setting(PixelSpacing=["0", "0"]),
    "spacing_na": each(spacing_text("N/A")),
    "spacing_garbage": each(spacing_text("0.7x\\0.7")),
    "spacing_of_imager": each(only_imager),
}
_REFUSED: dict[str, tuple[Build, str]] = {
    "same_position": (same_place, "position"),
    "slice_missing": (kept((0, 1, 2, 4, 5)), r"missing.*mm|mm.*missing|gaps"),
    "tilt_20_degrees": (tilted(20), "(?i)tilt|shear|beside"),
    "no_position": (without("ImagePositionPatient", "SliceLocation"), "(?i)position"),
}

GEOMETRY = (
    *(Case(name=name, build=build, tasks=ALL) for name, build in _EVEN.items()),
    *(Case(name=name, build=build) for name, build in _TURNED.items()),
    *(Case(name=name, build=build) for name, build in _UNKNOWN.items()),
    *(
        Case(
            name=f"{name}_rays",
            build=build,
            outcome="refused",
            says=r"data\.pixel_mm",
            tasks=("simulate", "purify"),
        )
        for name, build in _UNKNOWN.items()
    ),
    *(
        Case(
            name=f"{name}_given",
            build=build,
            keys={"data.pixel_mm": 2.75},
            tasks=("simulate", "purify"),
        )
        for name, build in _UNKNOWN.items()
    ),
    Case(
        name="orientation_skewed",
        build=setting(ImageOrientationPatient=["1", "0", "0", "0.5", "1", "0"]),
        outcome="either",
        says="(?i)orient",
        tasks=BOTH,
    ),
    Case(name="pixels_not_square", build=setting(PixelSpacing=["2.5", "3"])),
    Case(
        name="pixels_not_square_rays",
        build=setting(PixelSpacing=["2.5", "3"]),
        outcome="refused",
        says="square",
        tasks=("simulate",),
    ),
    Case(
        name="slice_missing_allowed",
        build=kept((0, 1, 2, 4, 5)),
        keys={"data.gaps": "allow"},
        tasks=ALL,
    ),
    Case(
        name="sparse_allowed",
        build=steps(70, 2.5, 40),
        keys={"data.gaps": "allow"},
        tasks=ALL,
    ),
    *(
        Case(name=name, build=build, outcome="refused", says=says, tasks=BOTH)
        for name, (build, says) in _REFUSED.items()
    ),
)
