"""A small NumPy thorax with known truth, for masks: ellipses, no scatter, no noise."""

from typing import NamedTuple

import numpy as np


class Thorax(NamedTuple):
    """HU image and its truth."""

    hu: np.ndarray
    lung: np.ndarray
    body: np.ndarray


def thorax(
    size: int,
    *,
    wall: float = 0.07,
    width: float = 0.42,
    trachea: bool = True,
    shift: float = 0.0,
) -> Thorax:
    """A slice of `size` pixels across.

    Args:
        size: rows and columns.
        wall: thickness of the chest wall beside the lungs, as a share of the size.
        width: half the body's width, as a share of the size.
        trachea: whether there is one.
        shift: moves everything down, as a share of the size.
    """
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    y = y - shift

    def ellipse(cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
        return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1

    hu = np.full((size, size), -1000.0)
    body = ellipse(0, 0, 0.3, width)
    hu[body] = 40.0
    hu[body & ~ellipse(0, 0, 0.3 - wall / 3, width - wall / 3)] = -100.0
    lung_rx = (width - wall) / 2 - 0.02
    lung = np.zeros_like(body)
    for side in (-1, 1):
        lung |= ellipse(0.0, side * (width - wall - lung_rx), 0.19, lung_rx)
    hu[lung] = -860.0
    for cy, cx in ((-0.05, 0.2), (0.06, 0.17), (0.0, -0.2), (0.08, -0.24)):
        vessel = ellipse(cy, cx, 0.012, 0.012)
        hu[vessel] = 40.0
        lung &= ~vessel
    hu[ellipse(0.2, 0, 0.05, 0.05)] = 700.0
    if trachea:
        hu[ellipse(-0.12, 0, 0.018, 0.018)] = -1000.0
    # The table: a curved shell below the body, a few pixels thick.
    shell = ellipse(-0.1, 0, 0.49, 0.7) & ~ellipse(-0.1, 0, 0.48, 0.69) & (y > 0.2)
    hu[shell & ~body] = 100.0
    return Thorax(hu.astype(np.float32), lung, body)
