"""Registered pairs: the normal-dose slice, deformed onto the low-dose one.

This is what a reviewer asks for first: why compose pairs, if they can be registered? A
registration leaves what it cannot follow (sliding pleura, vessels that leave the plane,
noise it takes for structure) misaligned, and its interpolation smooths the target.

Slices are registered one by one in their plane, by the symmetric demons of SimpleITK
(Vercauteren et al., NeuroImage 45, 2009), from coarse to fine. The result is kept in a
folder, so that a slice is registered once.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float

from common.errors import UserError
from common.files import replacing
from common.pipeline import Record, Source
from common.progress import tracked
from ipv2.ct_io.volume import hu_to_int16

# Lungs and soft tissue; what is denser would dominate the forces.
_RANGE_HU = (-1000.0, 300.0)
# Pixels: against the low dose's noise, which the demons would follow.
_SMOOTH_PX = 2.0
# Pixels along each axis of the coarsest level that is still registered.
_SMALLEST = 32
# (pixels a level's pixel is made of, iterations).
_LEVELS = ((8, 60), (4, 60), (2, 40), (1, 20))
# Pixels of a level, of the Gaussian that keeps the field smooth.
_FIELD_PX = 2.0
_VERSION = "1"


def register(
    lq: Float[np.ndarray, "h w"],
    gt: Float[np.ndarray, "h w"],
    spacing_mm: tuple[float, float],
) -> Float[np.ndarray, "h w"]:
    """Returns gt deformed onto lq, HU; beyond its border gt's nearest pixel counts.

    Args:
      lq: low-dose slice, HU.
      gt: normal-dose slice of another breath, HU.
      spacing_mm: size of a pixel, (row, column).

    Raises:
      UserError: the slices are smaller than 32 pixels.
    """
    if min(lq.shape) < _SMALLEST:
        raise UserError(
            f"slices of {lq.shape[0]} x {lq.shape[1]} pixels cannot be registered; "
            f"accepted: at least {_SMALLEST} along each axis. Choose other pairs: "
            "config.purify.version."
        )
    fixed, moving = (_visible(image, spacing_mm) for image in (lq, gt))
    field = sitk.Image(fixed.GetSize(), sitk.sitkVectorFloat64)
    field.CopyInformation(fixed)
    for shrink, iterations in _LEVELS:
        if min(fixed.GetSize()) // shrink < _SMALLEST:
            continue
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(_FIELD_PX)
        level = [_coarse(image, shrink) for image in (fixed, moving)]
        # The coarser level's field is where this one begins.
        field = demons.Execute(*level, sitk.Resample(field, level[0]))
    return _deformed(gt, spacing_mm, field)


class Registered:
    """Records whose `gt` is registered onto their `lq`."""

    def __init__(self, source: Source, folder: Path) -> None:
        """Reads nothing yet.

        Args:
          source: records of `datasets.pair`.
          folder: where registered slices are kept.
        """
        self._source, self._folder = source, folder

    def __len__(self) -> int:
        """As many as the source has."""
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        """The record at a place, with its registered slice."""
        record = self._source[index]
        path = self._folder / f"{_content_hash(record)}.npy"
        if not path.exists():
            lq, gt = (np.asarray(record[key], np.float32) for key in ("lq", "gt"))
            row, column = (float(mm) for mm in record["spacing_mm"])
            # Without a known size pixels are taken for square.
            known = (row, column) if np.isfinite(row * column) else (1.0, 1.0)
            registered = register(lq, gt, known)
            with replacing(path) as temporary:
                np.save(temporary, hu_to_int16(registered, name="registered slice"))
        return {**record, "gt": np.load(path)}

    def prepare(self) -> None:
        """Registers what is not in the folder yet; shows its progress."""
        for index in tracked(range(len(self)), "registering"):
            self[index]


def _content_hash(record: Mapping[str, Any]) -> str:
    """Returns 24 hex digits of all that decides a registered slice."""
    digest = hashlib.sha256(f"{_VERSION} {sitk.Version.VersionString()}".encode())
    for key in ("lq", "gt", "spacing_mm"):
        digest.update(np.ascontiguousarray(record[key]).tobytes())
    return digest.hexdigest()[:24]


def _visible(image: np.ndarray, spacing_mm: tuple[float, float]) -> sitk.Image:
    """Returns what the forces see of a slice."""
    clipped = np.clip(image, *_RANGE_HU).astype(np.float32)
    found = sitk.GetImageFromArray(clipped)
    found.SetSpacing(spacing_mm[::-1])
    sigma = [_SMOOTH_PX * mm for mm in found.GetSpacing()]
    return sitk.SmoothingRecursiveGaussian(found, sigma)


def _coarse(image: sitk.Image, shrink: int) -> sitk.Image:
    return image if shrink == 1 else sitk.BinShrink(image, [shrink] * 2)


def _deformed(
    image: np.ndarray, spacing_mm: tuple[float, float], field: sitk.Image
) -> np.ndarray:
    """Returns the slice moved by the field, by cubic B-splines."""
    moving = sitk.GetImageFromArray(image.astype(np.float32))
    moving.SetSpacing(spacing_mm[::-1])
    warp = sitk.ResampleImageFilter()
    warp.SetReferenceImage(moving)
    warp.SetInterpolator(sitk.sitkBSpline)
    warp.SetUseNearestNeighborExtrapolator(True)
    full = sitk.Resample(field, moving)
    vectors = sitk.Cast(full, sitk.sitkVectorFloat64)
    warp.SetTransform(sitk.DisplacementFieldTransform(vectors))
    moved = sitk.GetArrayFromImage(warp.Execute(moving))
    # A spline overshoots at edges, beyond what the slice holds.
    return np.clip(moved, image.min(), image.max())
