"""Cuts images into overlapping tiles, and joins them without a seam.

Along each axis of a padded image of H pixels, tiles of T pixels start at o_0 = 0 <
o_1 < ... = H - T, all multiples of the network's stride. If a result depends on at most
r pixels around it (`radius`), a tile gives the result of the whole image, except for
the r pixels along its inner edges, whose weight is zero. In the rest of the overlap the
weight rises linearly with the distance from that edge. Weights are divided by their sum
over the tiles, so they sum to 1 at every pixel. With a known r, the joined image is
that of the whole image up to rounding. If a result depends on the whole image (r None),
each tile is processed as a separate image, and the cross-fade over the whole overlap
hides the seams.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from common.errors import UserError

# For networks whose results depend on the whole image.
DEFAULT_TILE = 256


class Tiling(NamedTuple):
    """How images of any size are cut.

    Attributes:
      tile: height and width, a multiple of `stride`; 0: images are not cut.
      overlap: overlap of neighbouring tiles, at least 2 * radius.
      radius: pixels along inner edges whose weight is zero.
      stride: tiles start at multiples of it.
    """

    tile: int = 0
    overlap: int = 0
    radius: int = 0
    stride: int = 1


def create_tiling(
    *, tile: int, overlap: int, radius: int | None, stride: int, section: str = ""
) -> Tiling:
    """Returns the tiling for the given values and network.

    Args:
      tile: pixels, rounded up to a multiple of `stride`; 0 for whole images; -1 for
        whole images if `radius` is known and for tiles of DEFAULT_TILE if not, which
        bounds memory for images of any size.
      overlap: pixels; -1 for 2 * radius, or for a quarter of the tile if that is None.
      radius: a result depends on at most so many pixels around it; None: on the whole
        image.
      stride: stride of the network.
      section: the config section of `tile` and `overlap`, for messages, such as
        'config.denoise.'.

    Raises:
      UserError: Tiles are too small for the radius, or overlap too little or too much.
    """
    if tile < -1:
        raise UserError(f"{section}tile: got {tile}, accepted: at least -1")
    if tile == -1:
        tile = 0 if radius is not None else DEFAULT_TILE
    if tile == 0:
        return Tiling()
    tile = -(-tile // stride) * stride
    margin = radius or 0
    if tile < 2 * margin + stride:
        raise UserError(
            f"{section}tile: got {tile}, accepted: at least "
            f"{2 * margin + stride}, since a result of this network depends on "
            f"{margin} pixels around it; or 0 for whole slices"
        )
    if overlap == -1:
        overlap = 2 * margin if radius is not None else tile // 4
    if not 2 * margin <= overlap <= tile - stride:
        raise UserError(
            f"{section}overlap: got {overlap}, accepted: {2 * margin} (twice "
            f"the {margin} pixels that a result depends on) to {tile - stride} (for "
            f"tiles of {tile}); or -1"
        )
    return Tiling(tile=tile, overlap=overlap, radius=margin, stride=stride)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Axis:
    """The tiles along one axis.

    Attributes:
      origins: first pixel of each tile.
      weights: (tiles, size), weight of each tile's pixels in the result.
      size: size of a tile.
      extent: size of the image, padded for the last tile.
    """

    origins: tuple[int, ...]
    weights: np.ndarray
    size: int
    extent: int


@functools.lru_cache(maxsize=16)
def cut_axis(length: int, tiling: Tiling) -> Axis:
    """Returns places and weights of the tiles along an axis of `length` pixels."""
    tile, overlap, radius, stride = tiling
    if tile == 0 or length <= tile:
        whole = length if tile == 0 else -(-length // stride) * stride
        ones = np.ones((1, whole), np.float32)
        return Axis(origins=(0,), weights=ones, size=whole, extent=whole)
    extent = -(-length // stride) * stride
    step = (tile - overlap) // stride * stride
    last = extent - tile
    origins = (*range(0, last, step), last)
    weights = np.zeros((len(origins), tile))
    fade = overlap - 2 * radius + 1
    rising = np.clip((np.arange(tile) + 1 - radius) / fade, 0, 1)
    total = np.zeros(extent)
    for weight, origin in zip(weights, origins, strict=True):
        weight[:] = 1
        if origin > 0:
            weight *= rising
        if origin < last:
            weight *= rising[::-1]
        total[origin : origin + tile] += weight
    for weight, origin in zip(weights, origins, strict=True):
        weight /= total[origin : origin + tile]
    return Axis(
        origins=origins, weights=weights.astype(np.float32), size=tile, extent=extent
    )


def count_tiles(shape: tuple[int, int], tiling: Tiling) -> int:
    """Returns the number of tiles of an image of that shape."""
    rows, columns = (cut_axis(length, tiling) for length in shape)
    return len(rows.origins) * len(columns.origins)


def cut(
    image: Float[np.ndarray, "h w c"], tiling: Tiling
) -> Iterator[Float[np.ndarray, "th tw c"]]:
    """Yields the tiles of an image, row by row, all of one size.

    At the bottom and the right, edge pixels pad the image to a multiple of the stride,
    as the networks themselves do.
    """
    height, width = image.shape[:2]
    rows, columns = cut_axis(height, tiling), cut_axis(width, tiling)
    extra = ((0, rows.extent - height), (0, columns.extent - width), (0, 0))
    padded = np.pad(image, extra, mode="edge")
    for y in rows.origins:
        for x in columns.origins:
            yield padded[y : y + rows.size, x : x + columns.size]


def join(
    tiles: Sequence[Float[np.ndarray, "th tw"]],
    shape: tuple[int, int],
    tiling: Tiling,
) -> Float[np.ndarray, "h w"]:
    """Joins processed tiles, in the order of `cut`, to an image of that shape."""
    height, width = shape
    rows, columns = cut_axis(height, tiling), cut_axis(width, tiling)
    if len(tiles) == 1:
        return tiles[0][:height, :width]
    image = np.zeros((rows.extent, columns.extent), np.float32)
    places = [
        (i, j) for i in range(len(rows.origins)) for j in range(len(columns.origins))
    ]
    for (i, j), tile in zip(places, tiles, strict=True):
        y, x = rows.origins[i], columns.origins[j]
        weight = rows.weights[i][:, None] * columns.weights[j][None, :]
        image[y : y + rows.size, x : x + columns.size] += weight * tile
    return image[:height, :width]
