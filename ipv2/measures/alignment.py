"""Whether two images of a pair show the anatomy at one place, from correlations.

Only a reference that is aligned with the image can tell blur from motion. A slice is
cut into tiles of 32 x 32 pixels. In each tile the gradients of the smoothed input and
of the smoothed reference (sigma 2 pixels) are correlated at several shifts d:

    r(d) = sum(grad lq(x) . grad gt(x + d)) / sqrt(sum |grad lq|^2 sum |grad gt|^2)

The tile is in place if this correlation is at its peak, and if it is high:

1. No shift correlates better than none, up to what a shift of 3/4 pixel would lose. The
   gradient of an edge smoothed by sigma correlates with itself, shifted across by d, as
   exp(-d^2 / (4 sigma^2)): r(0) >= exp(-0.75^2 / (4 sigma^2)) max r = 0.965 max r.
   Along an edge r does not change. The shift moves gt, so the noise of lq adds nearly
   the same to r(0) and to its neighbours.
2. The structure of gt is in lq: s = sum(grad lq . grad gt) / sum |grad gt|^2 >= 0.7. It
   is 1 for an aligned pair, whatever the noise of lq, and near 0 for edges that moved
   further than the shifts.

Tiles count if they show structure above the noise: gradients of gt of 8 HU per pixel
or more (rms; an edge of 120 HU across the tile), and no more than 1.5 times their power
in lq, which leaves half as much for noise. Such noise gives s a deviation of
sqrt(0.5 / 40) = 0.11, since a tile has about 40 independent gradients.

A breath leaves table, spine and back in place and moves lungs, heart and front, so one
correlation of whole slices still peaks at the centre. Pairs are aligned if 90 % of
their tiles are in place.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ipv2.kernels.smoothing import gaussian

_TILE_PX = 32
_SMOOTH_PX = 2.0
_STEPS_PX = (-8, -4, -2, -1, 0, 1, 2, 4, 8)
_LOSS_PX = 0.75
# HU per pixel.
_LEAST_GRADIENT = 8.0
_LARGEST_POWER, _LEAST_SLOPE = 1.5, 0.7
_LEAST_SHARE = 0.9
# Along each axis: in a smaller image a tile holds half a chest, moved edges beside
# edges that stayed.
_LEAST_TILES = 4


class Alignment(NamedTuple):
    """How much of some slices is in place.

    Attributes:
      share: tiles in place over tiles that count, 0 ... 1; None if no tile counts.
      n_tiles: tiles that count.
      n_slices: slices that were looked at.
    """

    share: float | None
    n_tiles: int
    n_slices: int

    @property
    def aligned(self) -> bool:
        """Whether the pairs count as aligned."""
        return self.share is not None and self.share >= _LEAST_SHARE


def alignment_of(
    pairs: Iterable[tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]],
) -> Alignment:
    """Returns how much of the slices (lq, gt), HU, is in place.

    Slices of fewer than 128 pixels along an axis are not judged.
    """
    in_place = counted = slices = 0
    for lq, gt in pairs:
        slices += 1
        if min(lq.shape) < _LEAST_TILES * _TILE_PX:
            continue
        found, counts = jax.device_get(tiles_in_place(jnp.asarray(lq), jnp.asarray(gt)))
        in_place += int((found & counts).sum())
        counted += int(counts.sum())
    share = in_place / counted if counted else None
    return Alignment(share, counted, slices)


@jax.jit
def tiles_in_place(
    lq: Float[Array, "h w"], gt: Float[Array, "h w"]
) -> tuple[Bool[Array, "m n"], Bool[Array, "m n"]]:
    """Returns which tiles are in place, and which of them count.

    Args:
      lq: noisy image, HU.
      gt: reference of less noise, HU; at least 32 pixels along each axis.
    """
    moving, fixed = _gradients(gt), _gradients(lq)
    power = _tile_mean(jnp.square(fixed))
    structure = _tile_mean(jnp.square(moving))
    shifts = jnp.asarray([(y, x) for y in _STEPS_PX for x in _STEPS_PX])

    def correlation(shift: Array) -> Array:
        moved = jnp.roll(moving, shift, axis=(1, 2))
        norm = jnp.sqrt(power * _tile_mean(jnp.square(moved)))
        return _ratio(_tile_mean(fixed * moved), norm)

    correlations = jax.lax.map(correlation, shifts)
    kept = math.exp(-((_LOSS_PX / (2 * _SMOOTH_PX)) ** 2))
    at_peak = correlations[len(shifts) // 2] >= kept * jnp.max(correlations, axis=0)
    high = _ratio(_tile_mean(fixed * moving), structure) >= _LEAST_SLOPE
    # A mean over both directions is half of the squared gradient.
    steep = 2 * structure >= _LEAST_GRADIENT**2
    return at_peak & high, steep & (power <= _LARGEST_POWER * structure)


def _ratio(a: Array, b: Array) -> Array:
    """Returns a / b; 0 where b is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _gradients(image: Array) -> Array:
    """Returns the smoothed image's gradients, (2, h, w), HU per pixel."""
    return jnp.stack(jnp.gradient(gaussian(image, _SMOOTH_PX)))


def _tile_mean(images: Array) -> Array:
    """Returns the means of (2, h, w) over both directions and each tile."""
    rows, columns = (side // _TILE_PX for side in images.shape[1:])
    cut = images[:, : rows * _TILE_PX, : columns * _TILE_PX]
    tiles = cut.reshape(len(images), rows, _TILE_PX, columns, _TILE_PX)
    return jnp.mean(tiles, axis=(0, 2, 4))
