"""Matches the slices of two volumes of different breaths."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from common.errors import UserError
from ipv2.ct_io.volume import Volume

Match: TypeAlias = Literal["position", "index"]

# A message names at most so many slices without a partner.
_NAMED = 3
# lq and gt are paired pixel by pixel. Breathing moves anatomy by up to about 20 mm;
# fields of view that are farther apart show different anatomy.
_SIDEWAYS_MM = 20.0
# Positions are text, mostly with a resolution of 0.01 mm.
_ROUNDING_MM = 1e-3


def match_slices(
    lq: Volume, gt: Volume, *, by: Match = "position", other: str = "gt"
) -> tuple[list[tuple[int, int]], str]:
    """Matches slices of lq and gt; the volumes may differ in length.

    By position, a slice of lq takes the nearest slice of gt along the normal, if it is
    within half a slice of either; each slice is used once. A slice's position is that
    of its own header. By index, and for volumes without positions (PNG), slice i takes
    slice i.

    Args:
      lq: low-dose volume.
      gt: normal-dose volume.
      by: 'position' or 'index'.
      other: what messages call `gt`.

    Returns:
      Pairs of indices (lq, gt), ascending in lq; and a text that names the slices
      without a partner, '' if there is none.

    Raises:
      UserError: The grids differ in pixel count, pixel spacing, orientation or unit, no
        slices have a common position, or the fields of view are beside each other.
    """
    _check_grids(lq, gt, other)
    counts = len(lq.hu), len(gt.hu)
    if by == "index" or not (lq.positions_known and gt.positions_known):
        pairs = [(index, index) for index in range(min(counts))]
        return pairs, _left_out(lq, gt, pairs, other)
    pairs = _by_position(lq, gt)
    if not pairs:
        raise UserError(
            f"{lq.name}: no slice of lq and {other} at a common position: lq "
            f"covers {_extent(lq)}, {other} {_extent(gt)} along the normal. If the "
            "table was moved between the scans, pair by index: "
            "--config.data.match=index"
        )
    _check_sideways(lq, gt, pairs, other)
    return pairs, _left_out(lq, gt, pairs, other)


def _left_out(
    lq: Volume, gt: Volume, pairs: Sequence[tuple[int, int]], other: str
) -> str:
    """Names the slices without a partner."""
    texts = []
    for side, (name, volume) in enumerate((("lq", lq), (other, gt))):
        count = len(volume.hu)
        alone = sorted(set(range(count)) - {pair[side] for pair in pairs})
        if alone:
            named = ", ".join(_slice_name(volume, i) for i in alone[:_NAMED])
            more = ", ..." if len(alone) > _NAMED else ""
            texts.append(f"{len(alone)} of {count} {name} slices ({named}{more})")
    return " and ".join(texts) + " without a partner" if texts else ""


def _slice_name(volume: Volume, index: int) -> str:
    """Returns a slice's name for messages: its file and its position."""
    several = len(volume.paths) == len(volume.hu) > 1
    name = volume.paths[index].name if several else f"number {index}"
    if not volume.positions_known:
        return name
    return f"{name} at {volume.position_mm(index) @ volume.normal:.1f} mm"


def _by_position(lq: Volume, gt: Volume) -> list[tuple[int, int]]:
    where_lq, where_gt = _positions(lq, lq.normal), _positions(gt, lq.normal)
    distance = np.abs(where_lq[:, None] - where_gt[None, :]).round(3)
    # In a tie take the lower slice of gt and the upper slice of lq: with an offset of
    # half a slice, this pairs all slices instead of every other one.
    nearest_gt = distance.argmin(1)
    nearest_lq = len(distance) - 1 - distance[::-1].argmin(0)
    steps_lq, steps_gt = _steps(where_lq, lq), _steps(where_gt, gt)
    return [
        (i, int(j))
        for i, j in enumerate(nearest_gt)
        if nearest_lq[j] == i
        and distance[i, j] <= min(steps_lq[i], steps_gt[j]) / 2 + _ROUNDING_MM
    ]


def _steps(where: np.ndarray, volume: Volume) -> np.ndarray:
    """Returns the distance in mm to each slice's nearest neighbour.

    For a single slice it is the slice thickness.
    """
    if len(where) == 1:
        return np.asarray([volume.spacing_mm[0]])
    steps = np.abs(np.diff(where))
    return np.minimum(np.append(steps, np.inf), np.append(np.inf, steps))


def _check_sideways(
    lq: Volume, gt: Volume, pairs: Sequence[tuple[int, int]], other: str
) -> None:
    """Raises UserError if the two fields of view are beside each other."""
    shifts = np.stack([gt.position_mm(j) - lq.position_mm(i) for i, j in pairs])
    normal = lq.normal
    shifts = shifts - (shifts @ normal)[:, None] * normal
    farthest = shifts[int(np.linalg.norm(shifts, axis=1).argmax())]
    if np.linalg.norm(farthest) > _SIDEWAYS_MM:
        x, y, z = farthest
        raise UserError(
            f"{lq.name}: {other}'s slices lie ({x:.1f}, {y:.1f}, {z:.1f}) mm beside "
            f"lq's, accepted are {_SIDEWAYS_MM:g} mm: the two fields of view show "
            "other places. Reconstruct both about one centre; if the table was moved, "
            "pair by index: --config.data.match=index"
        )


def _positions(volume: Volume, normal: np.ndarray) -> np.ndarray:
    return np.array([volume.position_mm(i) @ normal for i in range(len(volume.hu))])


def _extent(volume: Volume) -> str:
    where = _positions(volume, volume.normal)
    return f"{where[0]:.1f} to {where[-1]:.1f} mm"


def _check_grids(lq: Volume, gt: Volume, other: str) -> None:
    for what, a, b, near in (
        ("pixels (rows, columns)", lq.hu.shape[1:], gt.hu.shape[1:], 0.0),
        # 1 % of spacing is 2.5 pixels at the edge of a 512-pixel image.
        (
            "pixel spacing (mm)",
            lq.spacing_mm[1:],
            gt.spacing_mm[1:],
            0.01 * lq.spacing_mm[1],
        ),
        # 0.02 is about one degree.
        ("orientation", lq.direction, gt.direction, 0.02),
    ):
        if not np.allclose(a, b, rtol=0, atol=near):
            raise UserError(
                f"{lq.name}: lq and {other} differ in {what}: {a} and {b}. Resample "
                "one to the other's grid."
            )
    if lq.unit != gt.unit:
        raise UserError(
            f"{lq.name}: lq holds {lq.unit} values, {other} {gt.unit}. For PNG beside "
            "another format, state the window of the PNG in HU."
        )
