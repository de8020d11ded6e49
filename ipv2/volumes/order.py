"""Decides whether the masks of a pair can use the order of its slices."""

import dataclasses

import numpy as np
from absl import logging

from common.errors import UserError
from ipv2.ct_io import Volume
from ipv2.purification.purify import PurifyParams

# The ends of the lungs overlap little in slices that are farther apart.
_FARTHEST_MM = 20.0


def with_volume(
    params: PurifyParams, lq: Volume, gt: Volume, asked: bool | None
) -> tuple[PurifyParams, str]:
    """Returns the parameters with `anatomy.volume` set, and the decision in words.

    If the slices are no stack and nothing was asked for, a line in the log says so.

    Args:
      params: how to purify.
      lq: slices of the low-dose volume.
      gt: their partners.
      asked: whether to use the order of slices; None: if both volumes are stacks.

    Raises:
      UserError: `asked` is True, and one volume is no stack.
    """
    if params.variant == "reference":
        return params, "2-D, as published"
    problem = _problem(lq) or _problem(gt)
    if asked and problem:
        raise UserError(
            f"{problem}; --config.purify.volume=True needs slices with positions, at "
            f"most {_FARTHEST_MM:g} mm apart. Leave it out for masks in 2-D."
        )
    if asked is None and problem:
        logging.info("%s: masks in 2-D", problem)
    volume = not problem if asked is None else asked
    anatomy = dataclasses.replace(params.anatomy, volume=volume)
    reason = f": {problem}" if asked is None and problem else ""
    words = ("3-D" if volume else "2-D") + reason
    return dataclasses.replace(params, anatomy=anatomy), words


def _problem(volume: Volume) -> str:
    """Returns why a volume's slices are no stack; '' if they are one."""
    count = len(volume.hu)
    if count == 1:
        return f"{volume.name}: a single slice"
    if not volume.positions_known:
        return f"{volume.name}: slices without positions"
    positions = np.stack([volume.position_mm(index) for index in range(count)])
    farthest = float(np.abs(np.diff(positions @ volume.normal)).max())
    if farthest > _FARTHEST_MM:
        return f"{volume.name}: neighbouring slices {farthest:.4g} mm apart"
    return ""
