"""Reads the places of a DICOM series' slices from their headers.

Each slice keeps its own position and orientation; the mean grid of a series is used
only for computation. Geometry that a header does not state is unknown (`Place`): it is
computed as a plain axial slice of 1 mm pixels, and never written.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset

from common.errors import UserError
from ipv2.ct_io.dicom_header import number_of, numbers_of
from ipv2.ct_io.volume import Gaps

_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# Cosines are text of about six digits.
_COSINES_NEAR = 1e-3
# Positions rounded to 0.1 mm at 0.5 mm steps are off by 20 %.
_STEPS_NEAR = 0.25
# Rounded text makes even steps differ by up to this.
_EVEN_MM = 0.011


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a slice: few numbers, so that a long series needs little memory.

    Attributes:
      path: file of the slice.
      name: name for messages: the file, or the frame of a file.
      origin_mm: ImagePositionPatient (x, y, z); None if it is not stated.
      cosines: ImageOrientationPatient, rows then columns; None if it is not stated, or
        its two directions are no unit vectors at a right angle.
      pixel_mm: PixelSpacing (row, column); None if it is not stated.
      gap_mm: SpacingBetweenSlices or SliceThickness; None if neither is stated.
    """

    path: Path
    name: str
    origin_mm: tuple[float, float, float] | None
    cosines: tuple[float, ...] | None
    pixel_mm: tuple[float, float] | None
    gap_mm: float | None

    @property
    def short_name(self) -> str:
        """The name without its folder."""
        return self.name.rpartition("/")[2]

    @property
    def direction(self) -> np.ndarray:
        """Columns x, y and normal of the slice; axial if it is not stated."""
        x, y = np.reshape(self.cosines or _AXIAL, (2, 3))
        return np.stack([x, y, np.cross(x, y)], axis=1)

    @property
    def position_mm(self) -> np.ndarray:
        """(x, y, z) of the first pixel; zero if it is not stated."""
        return np.asarray(self.origin_mm or (0.0, 0.0, 0.0))

    @property
    def along_mm(self) -> float:
        """Position along the slice's normal."""
        return float(self.position_mm @ self.direction[:, 2])


def place_of(path: Path, header: Dataset, *, name: str) -> Place:
    """Returns the place of a slice from its header.

    Args:
      path: file of the slice.
      header: header of the slice.
      name: name for messages.
    """
    origin = numbers_of(header, "ImagePositionPatient")
    cosines = numbers_of(header, "ImageOrientationPatient")
    spacing = numbers_of(header, "PixelSpacing")
    gaps = (
        number_of(header, "SpacingBetweenSlices", 0.0),
        number_of(header, "SliceThickness", 0.0),
    )
    row, column = spacing if len(spacing) == 2 else (0.0, 0.0)
    finite = row > 0 and column > 0 and np.isfinite([row, column]).all()
    return Place(
        path=path,
        name=name,
        origin_mm=_three(origin),
        cosines=cosines if _are_orthonormal(cosines) else None,
        pixel_mm=(row, column) if finite else None,
        gap_mm=next((gap for gap in gaps if gap > 0 and np.isfinite(gap)), None),
    )


def _three(values: tuple[float, ...]) -> tuple[float, float, float] | None:
    if len(values) != 3 or not np.isfinite(values).all():
        return None
    return values[0], values[1], values[2]


def _are_orthonormal(cosines: tuple[float, ...]) -> bool:
    if len(cosines) != 6:
        return False
    axes = np.reshape(cosines, (2, 3))
    return bool(np.allclose(axes @ axes.T, np.eye(2), rtol=0, atol=_COSINES_NEAR))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """Slices in the order of their positions.

    Attributes:
      places: places of the slices, ascending along the normal.
      gap_mm: mean distance between slices; None for one slice that does not state it.
      uneven: how the slices depart from an even stack, in words; '' if they do not.
    """

    places: tuple[Place, ...]
    gap_mm: float | None
    uneven: str


def stack(places: Sequence[Place], source: Path, *, gaps: Gaps) -> Stack:
    """Checks that slices form one stack, and orders them by position.

    Args:
      places: places of all slices, in any order; the slices have one size.
      source: file or folder for messages.
      gaps: whether to refuse uneven stacks.

    Raises:
      UserError: Slices differ in spacing or orientation, have no position, share one,
        or are uneven beyond rounding and `gaps` refuses that.
    """
    for other in places[1:]:
        _check_alike(places[0], other)
    if len(places) == 1:
        return Stack(places=tuple(places), gap_mm=places[0].gap_mm, uneven="")
    for place in places:
        if place.origin_mm is None:
            raise UserError(
                f"{place.name}: states no ImagePositionPatient, so the order and the "
                f"distances of the {len(places)} slices in {source} are unknown. Give "
                "a series with positions, or each slice as a file of its own."
            )
    ordered = sorted(places, key=lambda place: place.along_mm)
    steps = np.diff([place.along_mm for place in ordered])
    _check_apart(ordered, steps, source)
    uneven = _unevenness(ordered, steps)
    problem = _gap_problem(ordered, steps) or _shear_problem(ordered)
    if problem and gaps == "refuse":
        raise UserError(
            f"{source}: {problem}. Repair the series, or, for 2-D work, use its slices "
            "as they are: --config.data.gaps=allow"
        )
    return Stack(
        places=tuple(ordered), gap_mm=float(steps.mean()), uneven=problem or uneven
    )


def _check_alike(first: Place, other: Place) -> None:
    for what, a, b, near in (
        ("pixel spacings (mm)", first.pixel_mm, other.pixel_mm, 1e-4),
        ("orientations", first.cosines, other.cosines, _COSINES_NEAR),
    ):
        if (a is None) != (b is None) or not np.allclose(
            a or (), b or (), rtol=0, atol=near
        ):
            raise UserError(
                f"{other.name}: mixed {what} in one series: {b} here, {a} in "
                f"{first.short_name}. Keep slices of one kind in the folder."
            )


def _check_apart(places: Sequence[Place], steps: np.ndarray, source: Path) -> None:
    for (low, high), step in zip(itertools.pairwise(places), steps, strict=True):
        if step < 1e-3:
            raise UserError(
                f"{source}: {low.short_name} and {high.short_name} are at the same "
                f"position ({low.along_mm:.2f} mm along the normal). Keep one of them, "
                "or split the folder if it holds several phases."
            )


def _unevenness(places: Sequence[Place], steps: np.ndarray) -> str:
    """Describes accepted uneven steps; '' if rounding explains them."""
    typical = float(np.median(steps))
    worst = int(np.abs(steps - typical).argmax())
    if abs(steps[worst] - typical) <= _EVEN_MM:
        return ""
    return (
        f"steps from {steps.min():.2f} to {steps.max():.2f} mm, {typical:.2f} mm in "
        f"the middle; the farthest from it is {_between(places, worst)}"
    )


def _gap_problem(places: Sequence[Place], steps: np.ndarray) -> str:
    """Describes what is wrong with the steps; '' if nothing is."""
    typical = float(np.median(steps))
    allowed = f"accepted are {1 - _STEPS_NEAR:g} to {1 + _STEPS_NEAR:g} times that"
    worst = int(np.abs(steps - typical).argmax())
    step = float(steps[worst])
    if step > 1.5 * typical:
        missing = round(step / typical) - 1
        return (
            f"{_between(places, worst)}: about {missing} slices missing (step "
            f"{step:.2f} mm, elsewhere {typical:.2f} mm; {allowed})"
        )
    if abs(step - typical) > _STEPS_NEAR * typical:
        return (
            f"{_between(places, worst)}: irregular step {step:.2f} mm, elsewhere "
            f"{typical:.2f} mm; {allowed}; slices are missing or two series are mixed"
        )
    return ""


def _shear_problem(places: Sequence[Place]) -> str:
    """Describes a shear of the stack; '' if there is none."""
    first, last = places[0], places[-1]
    normal = first.direction[:, 2]
    shift = last.position_mm - first.position_mm
    sideways = float(np.linalg.norm(shift - (shift @ normal) * normal))
    allowed = max(first.pixel_mm or (1.0, 1.0))
    if sideways <= allowed:
        return ""
    return (
        f"the slices are sheared: the last one is {sideways:.1f} mm beside the normal "
        f"of the first (a tilted gantry); accepted is a pixel, {allowed:.2f} mm"
    )


def _between(places: Sequence[Place], index: int) -> str:
    low, high = places[index], places[index + 1]
    return (
        f"between {low.short_name} ({low.along_mm:.2f} mm) and {high.short_name} "
        f"({high.along_mm:.2f} mm)"
    )
