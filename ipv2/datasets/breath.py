"""Displaces a real chest CT like a breath: a misaligned partner with known truth.

    moved(r) = image(r + u(r)),    r in mm, u smooth, in the plane of each slice

u imitates breathing in an axial slice, as far as a smooth field can. The front of the
chest rises while the back lies on the table, and the sides follow a little. Inside the
body a further, irregular field is added; it is largest deep in the lungs and zero at
the skin and near the spine. Outside the body u fades to zero within 25 mm, so the table
does not move. Neighbouring slices move together: the irregular field is smooth along z
too. The field never folds: det(I + du/dr) stays above 0.2.

Through-plane motion is in whole slices (`MotionParams.through_slices`), because
interpolation between slices millimetres apart would blur the normal-dose image.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import SimpleITK as sitk

_WAVES = 8
_LEAST_JACOBIAN = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionParams:
    """How far a breath moves a chest.

    Attributes:
      chest_mm: rise of the front of the chest, 0 to 30 mm.
      lung_mm: largest irregular displacement inside the body, 0 to 30 mm.
      through_slices: offset of the partner along the normal in slices, -10 to 10.

    Raises:
      ValueError: A value is out of its range.
    """

    chest_mm: float | int = 5.0
    lung_mm: float | int = 9.0
    through_slices: int = 0

    def __post_init__(self) -> None:
        """Checks every range."""
        for name in ("chest_mm", "lung_mm"):
            value = getattr(self, name)
            if not 0 <= value <= 30:
                raise ValueError(f"{name} = {value}; 0 to 30 mm is breathing.")
        if abs(self.through_slices) > 10:
            raise ValueError(
                f"through_slices = {self.through_slices}; from -10 to 10 slices."
            )


def body_mask(hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Returns the body of one slice, with its lungs, without table, tubes and blankets.

    The body is the largest piece of tissue above -400 HU after an opening that removes
    parts thinner than 8 mm, with its holes filled.

    Args:
      hu: (h, w).
      spacing_mm: (row, column).

    Returns:
      (h, w) bool; all False if there is no tissue.
    """
    image = sitk.GetImageFromArray((hu > -400).astype(np.uint8))
    image.SetSpacing((float(spacing_mm[1]), float(spacing_mm[0])))
    radius = [max(1, round(4 / float(mm))) for mm in reversed(spacing_mm)]
    image = sitk.BinaryMorphologicalOpening(image, radius, sitk.sitkBall)
    image = sitk.RelabelComponent(sitk.ConnectedComponent(image), sortByObjectSize=True)
    image = sitk.BinaryFillhole(image == 1)
    return sitk.GetArrayFromImage(image).astype(bool)


def _smooth(value: np.ndarray, low: float | int, high: float | int) -> np.ndarray:
    share = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _depth_mm(body: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Returns the distance to the skin, positive inside."""
    image = sitk.GetImageFromArray(body.astype(np.uint8))
    image.SetSpacing((float(spacing_mm[1]), float(spacing_mm[0])))
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    return sitk.GetArrayFromImage(distance).astype(np.float64)


def jacobian(displacement_mm: np.ndarray, spacing_mm: Any) -> np.ndarray:
    """det(I + du/dr) of a field (h, w, 2), components (row, column), by differences."""
    row_row, row_column = np.gradient(displacement_mm[..., 0], *spacing_mm)
    column_row, column_column = np.gradient(displacement_mm[..., 1], *spacing_mm)
    return (1 + row_row) * (1 + column_column) - row_column * column_row


def displacement_mm(
    hu: np.ndarray,
    spacing_mm: tuple[float | int, float | int, float | int],
    seed: int,
    params: MotionParams | None = None,
    *,
    first_mm: float | int = 0.0,
) -> np.ndarray:
    """Returns the field u of every slice of a volume.

    Args:
      hu: (slices, rows, columns), HU. Rows run from the patient's front to the back;
        the patient lies on the back.
      spacing_mm: (slice, row, column).
      seed: seed of the irregular motion; the same seed gives the same breath.
      params: extent of the motion; None for the defaults.
      first_mm: position of the first slice, for a part of a volume.

    Returns:
      (slices, rows, columns, 2) float32: (row, column) components in mm; zero for
      slices without a body.

    Raises:
      ValueError: `hu` is not a volume, or a spacing is not above 0.
    """
    params = params or MotionParams()
    if hu.ndim != 3:
        raise ValueError(f"hu has shape {hu.shape}; (slices, rows, columns) is needed.")
    if len(spacing_mm) != 3 or not all(mm > 0 for mm in spacing_mm):
        raise ValueError(
            f"spacing_mm = {spacing_mm}; (slice, row, column), each above 0 mm."
        )
    rng = np.random.default_rng([seed, 2])
    waves = rng.normal(size=(_WAVES, 3))
    length = np.geomspace(90, 180, _WAVES)
    waves *= (2 * math.pi / length / np.linalg.norm(waves, axis=1))[:, None]
    phase = rng.uniform(0, 2 * math.pi, _WAVES)
    direction = rng.normal(size=(_WAVES, 2))
    sign = float(rng.choice([-1.0, 1.0]))
    slice_mm, plane_mm = spacing_mm[0], spacing_mm[1:]
    fields = np.zeros((*hu.shape, 2), np.float32)
    for index, image in enumerate(hu):
        field = _slice_field(
            image,
            plane_mm,
            first_mm + index * slice_mm,
            (waves, phase, direction),
            sign,
            params,
        )
        # Reduce the motion until the anatomy does not fold.
        while jacobian(field, plane_mm).min() < _LEAST_JACOBIAN:
            field *= 0.9
        fields[index] = field
    return fields


def _slice_field(
    hu: np.ndarray,
    spacing_mm: tuple[float, float],
    z_mm: float,
    irregular: tuple[np.ndarray, np.ndarray, np.ndarray],
    sign: float,
    params: MotionParams,
) -> np.ndarray:
    body = body_mask(hu, spacing_mm)
    if not body.any():
        return np.zeros((*hu.shape, 2))
    rows, columns = np.nonzero(body)
    row, column = (
        np.arange(size)[:, None] * mm if axis == 0 else np.arange(size)[None] * mm
        for axis, (size, mm) in enumerate(zip(hu.shape, spacing_mm, strict=True))
    )
    front, back = rows.min() * spacing_mm[0], rows.max() * spacing_mm[0]
    middle = columns.mean() * spacing_mm[1]
    height = np.clip((back - row) / max(back - front, 1.0), 0, 1)  # 0 back, 1 front
    across = np.clip((column - middle) / max(back - front, 1.0), -1, 1)
    depth = _depth_mm(body, spacing_mm)
    outside = 1 - _smooth(-depth, 0, 25)
    field = np.empty((*hu.shape, 2))
    # Where the chest has risen to the front, the image is read further back.
    field[..., 0] = sign * params.chest_mm * height * outside
    sideways = -sign * 0.5 * params.chest_mm * across * _smooth(height, 0, 0.5)
    field[..., 1] = sideways * outside

    waves, phase, direction = irregular
    swing = np.sin(
        row[..., None] * waves[:, 0]
        + column[..., None] * waves[:, 1]
        + z_mm * waves[:, 2]
        + phase
    )
    extra = swing @ direction
    extra *= params.lung_mm / np.abs(direction).sum(0).mean() * 1.6
    inside = _smooth(depth, 4, 40) * _smooth(height, 0.12, 0.45)
    return field + extra * inside[..., None]


def warp(
    hu: np.ndarray, displacement_mm: np.ndarray, spacing_mm: tuple[float, float]
) -> np.ndarray:
    """Returns moved(r) = image(r + u(r)) of one slice, by fifth-order B-splines.

    That order keeps the noise. Linear interpolation would remove a third of it, which
    would show a denoiser where anatomy moved.

    Args:
      hu: (h, w), HU.
      displacement_mm: (h, w, 2), (row, column) components.
      spacing_mm: (row, column).

    Returns:
      (h, w) float32; pixels read from beyond the image are -1024 HU. Splines ring at
      edges: values below the image's lowest value, where scanners clip, are set to it.
    """
    image = sitk.GetImageFromArray(hu.astype(np.float64))
    image.SetSpacing((float(spacing_mm[1]), float(spacing_mm[0])))
    vectors = np.ascontiguousarray(displacement_mm[..., ::-1], dtype=np.float64)
    field = sitk.GetImageFromArray(vectors, isVector=True)
    field.CopyInformation(image)
    transform = sitk.DisplacementFieldTransform(field)
    moved = sitk.Resample(image, image, transform, sitk.sitkBSpline5, -1024.0)
    result = sitk.GetArrayFromImage(moved)
    return np.maximum(result, min(hu.min(), -1024.0)).astype(np.float32)
