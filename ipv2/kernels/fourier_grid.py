"""Tables for the views of a parallel-beam scan on the image's Fourier grid.

Fourier slice theorem: the 1-D spectrum of a view is the image's 2-D spectrum along the
view's direction,

    P(f, theta) = F(f cos(theta), -f sin(theta)),    0 <= f <= 1/2 cycles per pixel.

A non-uniform FFT computes F at these points: divide the image by the transform of a
gridding kernel, zero-pad to twice the size, apply the FFT, and sum W x W grid
neighbours weighted by a separable Kaiser-Bessel kernel (Beatty, Nishimura, Pauly, IEEE
TMI 24(6), 2005).

This module makes the tables: neighbours and weights of each sample and, for the
adjoint, the samples and weights of each grid cell. They depend only on sizes and
angles, so NumPy makes them outside jit, and they are cached. `projection` holds the
operators that read them, and the conventions.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Number of grid neighbours of a sample along each axis, and oversampling of the grid:
# the relative error is about 1e-4, ten times less than float32 HU need.
WIDTH = 4
_OVERSAMPLING = 2
MARGIN = WIDTH // 2
# The number of contributions to a grid cell is rounded up to one of these. The first
# are unrolled; the others, for cells near zero frequency, where all views meet, are
# reductions.
UNROLLED = (4, 6, 8, 12, 16, 24)
_REDUCED = (32, 48, 64, 96, 128, 256, 512, 1024)
# A bucket with a smaller share of the cells, or fewer cells, joins the next larger one,
# which leaves fewer operations to compile.
_CELLS_PER_BUCKET = 400
_LEAST_CELLS = 100


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "apodisation",
        "first",
        "weight_x",
        "weight_y",
        "conjugate",
        "cell_sample",
        "cell_weight",
        "cell_place",
    ],
    meta_fields=["shape", "views", "detectors", "grid", "padded"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """The grid neighbours of each sample of each view, and the reverse.

    A pytree: pass it to jitted functions as an argument, so that its tables (about
    50 MB at 512^2 and 512 views) are not compiled in as constants.

    Attributes:
      shape: (h, w) of the image.
      views: number of angles, n.
      detectors: bins per view, d.
      grid: oversampled (rows, columns), even.
      padded: length of a view's FFT, even; K = padded // 2 + 1 frequencies.
      apodisation: (h, w), 1 / transform of the gridding kernel.
      first: (n K,) flat index of a sample's first neighbour on the half-plane grid.
      weight_x: (W, n K) weights along column frequency, with the centring signs.
      weight_y: (W, n K) the same along row frequency.
      conjugate: (n, 1) views read at the opposite point of the half-plane.
      cell_sample: for each bucket (L, cells), the samples that touch a cell.
      cell_weight: for each bucket (L, cells), their weights; 0 for padding.
      cell_place: (grid cells,) index of a cell's sum among the buckets' sums.
    """

    shape: tuple[int, int]
    views: int
    detectors: int
    grid: tuple[int, int]
    padded: int
    # The docstring states shapes: JAX also builds pytrees of things that are no arrays.
    apodisation: Any
    first: Any
    weight_x: Any
    weight_y: Any
    conjugate: Any
    cell_sample: tuple[Any, ...]
    cell_weight: tuple[Any, ...]
    cell_place: Any

    @property
    def extended(self) -> tuple[int, int]:
        """Size of the half-plane grid with its margins: (column, row) frequencies."""
        rows, columns = self.grid
        return columns // 2 + 1 + 2 * MARGIN, rows + 1 + 2 * MARGIN


def _fast_even(size: float | int) -> int:
    """Returns the smallest even 2^a 3^b 5^c that is not below size."""
    candidate = max(2, math.ceil(size))
    while True:
        if candidate % 2 == 0:
            rest = candidate
            for prime in (2, 3, 5):
                while rest % prime == 0:
                    rest //= prime
            if rest == 1:
                return candidate
        candidate += 1


def _beta() -> float:
    """Returns the kernel's shape parameter (Beatty et al. 2005, equation 5)."""
    ratio = WIDTH / _OVERSAMPLING
    return math.pi * math.sqrt((ratio * (_OVERSAMPLING - 0.5)) ** 2 - 0.8)


def _neighbours(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first of W grid points around each position, and weights (W, ...)."""
    first = np.ceil(position - WIDTH / 2).astype(np.int64)
    tap = np.arange(WIDTH).reshape((-1,) + (1,) * position.ndim)
    distance = first + tap - position
    inside = np.maximum(0.0, 1 - (2 * distance / WIDTH) ** 2)
    weight = np.i0(_beta() * np.sqrt(inside)) / WIDTH
    # The image's centre sits at the middle of the padded grid: half a period, (-1)^k.
    return first, weight * (1 - 2 * ((first + tap) % 2))


def _kernel_transform(size: int, grid: int) -> np.ndarray:
    """Returns the transform of the gridding kernel at the pixels of one axis."""
    position = (np.arange(size) - size // 2) / grid
    root = np.sqrt(_beta() ** 2 - (math.pi * WIDTH * position) ** 2)
    return np.sinh(root) / root


def _cell_tables(
    cell: np.ndarray, weight: np.ndarray, sample: np.ndarray, cells: int
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Returns samples and weights by cell, in buckets of similar sample counts."""
    order = np.argsort(cell, kind="stable")
    weight, sample = weight[order], sample[order]
    count = np.bincount(cell, minlength=cells)
    start = np.cumsum(count) - count
    samples, weights = [], []
    place = np.zeros(cells, np.int64)
    filled = 1  # index 0 holds the zero of untouched cells
    low = 0
    least = max(_LEAST_CELLS, np.count_nonzero(count) // _CELLS_PER_BUCKET)
    for level in (*UNROLLED, *_REDUCED, int(count.max())):
        members = np.flatnonzero((count > low) & (count <= level))
        if not members.size or (members.size < least and level < count.max()):
            continue
        low = level
        tap = np.arange(level)[:, None]
        used = tap < count[members]
        entry = np.where(used, start[members] + tap, 0)
        samples.append(np.where(used, sample[entry], 0).astype(np.int32))
        weights.append(np.where(used, weight[entry], 0.0).astype(np.float32))
        place[members] = filled + np.arange(members.size)
        filled += members.size
    return samples, weights, place.astype(np.int32)


@functools.lru_cache(maxsize=8)
def _cached_geometry(
    shape: tuple[int, int], angle_bytes: bytes, detectors: int
) -> Geometry:
    h, w = shape
    angle = np.frombuffer(angle_bytes, np.float64)
    rows, columns = _fast_even(_OVERSAMPLING * h), _fast_even(_OVERSAMPLING * w)
    # Pad so that views do not wrap around: for the projection of the whole rectangle,
    # and for the tails of the ramp (twice the detector).
    padded = _fast_even(max(2 * detectors, (math.hypot(h, w) + detectors) / 2, 16))
    frequency = np.arange(padded // 2 + 1) / padded

    # cos(pi / 2) must be 0, or rounding would select the half-plane.
    direction_x = np.round(np.cos(angle), 15)[:, None]
    direction_y = np.round(-np.sin(angle), 15)[:, None]
    conjugate = direction_x < 0
    sign = np.where(conjugate, -1.0, 1.0)
    x = (sign * direction_x * frequency * columns).reshape(-1)
    y = (sign * direction_y * frequency * rows).reshape(-1)
    first_x, weight_x = _neighbours(x)
    first_y, weight_y = _neighbours(y)
    # The detector's centre sits at the middle of the padded view: (-1)^k once more.
    weight_x = weight_x * np.tile(1 - 2 * (np.arange(frequency.size) % 2), angle.size)

    stride = rows + 1 + 2 * MARGIN
    extended = (columns // 2 + 1 + 2 * MARGIN) * stride
    first = (first_x + MARGIN) * stride + first_y + rows // 2 + MARGIN
    tap = np.arange(WIDTH)
    cell = first + stride * tap[:, None, None] + tap[None, :, None]
    weight = weight_x[:, None] * weight_y[None]
    sample = np.broadcast_to(np.arange(first.size, dtype=np.int32), cell.shape)
    samples, weights, place = _cell_tables(
        cell.reshape(-1), weight.reshape(-1), sample.reshape(-1), extended
    )
    apodisation = 1 / np.outer(
        _kernel_transform(h, rows), _kernel_transform(w, columns)
    )
    geometry = Geometry(
        shape=shape,
        views=angle.size,
        detectors=detectors,
        grid=(rows, columns),
        padded=padded,
        apodisation=apodisation.astype(np.float32),
        first=first.astype(np.int32),
        weight_x=weight_x.astype(np.float32),
        weight_y=weight_y.astype(np.float32),
        conjugate=conjugate,
        cell_sample=tuple(samples),
        cell_weight=tuple(weights),
        cell_place=place,
    )
    # Makes arrays, not tracers, even if a jitted function makes the first call.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, geometry)


def create_geometry(
    shape: tuple[int, int], angle_rad: Any, *, detectors: int | None = None
) -> Geometry:
    """Returns tables for images of one size and given angles; cached.

    Args:
      shape: (h, w) of the image, each at least 2.
      angle_rad: (n,) angles in radians, any values in any order; concrete.
      detectors: bins per view, d; max(h, w) if None. Only some views see the pixels
        outside the circle of that diameter; with `math.ceil(math.hypot(h, w))` bins all
        views see every pixel.

    Returns:
      The geometry.

    Raises:
      ValueError: The sizes or angles make no geometry.
      TypeError: The angles are traced; they must be known outside jit.
    """
    if isinstance(angle_rad, jax.core.Tracer):
        raise TypeError(
            "angle_rad is traced; the tables of the projector are made outside jit. "
            "Pass a NumPy array that is not an argument of the jitted function."
        )
    angle = np.ascontiguousarray(angle_rad, dtype=np.float64)
    if angle.ndim != 1 or angle.size == 0 or not np.all(np.isfinite(angle)):
        raise ValueError(
            f"angle_rad has shape {angle.shape}; it must be (n,), n >= 1, of finite "
            "angles in radians."
        )
    h, w = (int(size) for size in shape)
    if min(h, w) < 2:
        raise ValueError(f"image of {h} x {w} pixels; at least 2 x 2 is needed.")
    d = max(h, w) if detectors is None else int(detectors)
    if d < 2:
        raise ValueError(f"detectors = {d}; at least 2 bins are needed.")
    return _cached_geometry((h, w), angle.tobytes(), d)
