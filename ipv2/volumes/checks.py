"""Checks the geometry of a volume before simulation or denoising."""

import numpy as np

from common.errors import UserError
from ipv2.ct_io import Grid

_SMALLEST = 16


def check_axial(grid: Grid, shape: tuple[int, int, int]) -> None:
    """Raises UserError unless slices are axial and large enough."""
    # 0.9: gantries and necks tilt by up to 25 degrees.
    if abs(grid.normal[2]) < 0.9:
        raise UserError(
            f"{grid.name}: not axial slices (their normal is "
            f"{np.round(grid.normal, 2).tolist()}). Scanners measure axial slices, and "
            "the noise is simulated within these; reorient the volume."
        )
    if min(shape[1:]) < _SMALLEST:
        raise UserError(
            f"{grid.name}: got slices of {shape[1]} x {shape[2]} pixels; accepted: at "
            f"least {_SMALLEST} x {_SMALLEST}."
        )


def check_square(grid: Grid) -> None:
    """Raises UserError unless pixels are square."""
    _, row, column = grid.spacing_mm
    # 1e-3: headers are rounded, and a tenth of a percent changes no HU.
    if abs(row / column - 1) > 1e-3:
        raise UserError(
            f"{grid.name}: pixels of {row:g} x {column:g} mm. Rays are traced "
            "through square pixels; resample the volume to square ones."
        )


def check_neighbours(grid: Grid, channels: int) -> None:
    """Raises UserError if neighbouring slices are needed and not evenly spaced."""
    if channels > 1 and grid.uneven:
        raise UserError(
            f"{grid.name}: {grid.uneven}. The network reads {channels} neighbouring "
            "slices, which must be evenly spaced; use a network that reads one slice."
        )
