"""Images in overlapping tiles, and back without a seam.

Along each axis of a padded image of H pixels, tiles of T pixels stand at o_0 = 0 <
o_1 < ... = H - T, all multiples of the network's stride. Where a result depends on at
most r pixels beyond its own (`radius`), a tile computes what the whole image does, but
for the r pixels along its inner edges, which count nothing. What is left of the overlap
is a cross-fade, linear in the distance from that edge; its weights are divided by their
sum over the tiles, so that they sum to 1 at every pixel. So r known gives the whole
image's result, to rounding; where a result depends on the whole image (r None) each
tile is an image of its own, and the cross-fade over all of the overlap hides the seams.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from common.errors import UserError

# Of networks whose results depend on the whole image.
DEFAULT_TILE = 256


class Tiling(NamedTuple):
    """How images of any size are cut.

    Attributes:
      tile: height and width, a multiple of `stride`; 0: images stay whole.
      overlap: of neighbours, at least 2 * radius.
      radius: pixels along inner edges that count nothing.
      stride: what the tiles' places are multiples of.
    """

    tile: int = 0
    overlap: int = 0
    radius: int = 0
    stride: int = 1


def create_tiling(
    *, tile: int, overlap: int, radius: int | None, stride: int, section: str = ""
) -> Tiling:
    """The tiling that is asked for, if the network allows it.

    Args:
      tile: pixels, made a multiple of `stride`; 0 for whole images; -1 for whole images
        where `radius` is known, and tiles of DEFAULT_TILE where it is not: memory is
        bounded then, whatever the image.
      overlap: pixels; -1 for 2 * radius, or a quarter of the tile where that is None.
      radius: pixels that a result depends on beyond its own; None: the whole image.
      stride: of the network.
      section: that `tile` and `overlap` stand in, 'config.denoise.', for messages.

    Raises:
      UserError: tiles are too small for the radius, or overlap too little or too much.
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
      origins: where they begin.
      weights: (tiles, size), of each tile's pixels in the result.
      size: of a tile.
      extent: of the image, padded for the last tile.
    """

    origins: tuple[int, ...]
    weights: np.ndarray
    size: int
    extent: int


@functools.lru_cache(maxsize=16)
def cut_axis(length: int, tiling: Tiling) -> Axis:
    """Where the tiles along an axis of `length` pixels stand, and what they weigh."""
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
    """How many tiles an image of that shape has."""
    rows, columns = (cut_axis(length, tiling) for length in shape)
    return len(rows.origins) * len(columns.origins)


def cut(
    image: Float[np.ndarray, "h w c"], tiling: Tiling
) -> Iterator[Float[np.ndarray, "th tw c"]]:
    """The tiles of an image, row by row, all of one size.

    At the bottom and the right the image is continued by its edge pixels to a multiple
    of the stride, as the networks themselves do.
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
    """The image of that shape whose tiles, in the order of `cut`, were worked on."""
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
