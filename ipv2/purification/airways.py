"""Tells lungs from airways and bowel gas by the neighbours of a slice in its volume.

A slice alone can't tell a trachea from lung for sure: noise hides the 50 to 100 HU
between them, and a wall of a millimetre is lost on the working grid of `anatomy`. For
the slices of one volume in order, on that grid:

1. Lung level: the median HU of wide air inside the body. Wide air has room for a disc
   of `_WIDE`, and no airway has.
2. Gas: air whose mean, over a few pixels and three slices, lies at least a third of the
   way from the lung level to -1000 HU.
3. Airways: narrow pieces of gas, mostly among tissue, connected through slices to gas
   that lies alone, in no lung, where there is no wide air above or below, or in the
   first or last slice with air: the trachea in the neck, gas in the abdomen.
4. Lungs: components of all other air that hold some parenchyma, connected through
   slices to the lungs of the slice with the most lung. Parenchyma is above the 2-D
   threshold of gas or half-way from the lung level to -1000 HU, whichever is lower. So
   emphysema stays lung, as does a bulla that any parenchyma touches.

Everything is in integers, so a slice gives the same bits in any batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt32

from ipv2.kernels import bit_mask, flood_fill, morphology

# In pixels of a working grid of 256, about 1.7 mm each: the radius of wide air; half
# the width of the square of a mean, and of the one that tells lung from tissue; and the
# width of an airway's edge, around the core that has a mean.
_WIDE = 9
_MEAN = 2
_AROUND = 10
_RIM = 2
# A level is a number of steps above the lowest HU; the last one marks no air.
_LOWEST_HU, _STEP_HU, _LEVELS = -1200, 2, 256
NO_AIR = _LEVELS - 1
_AIR_LEVEL = (-1000 - _LOWEST_HU) // _STEP_HU


class AirSlices(NamedTuple):
    """What slices tell about the air inside the body, on the working grid.

    Attributes:
        inside: air inside the body, packed.
        level: the mean HU around each pixel, in steps of 2 HU from -1200; 255 at the
            edges of air and in all else.
    """

    inside: UInt32[Array, "*b n w"]
    level: UInt8[Array, "*b h w"]


def air_slices(
    coarse_hu: Float[Array, "*b h w"], inside: UInt32[Array, "*b n w"], scale: float
) -> AirSlices:
    """Returns what `volume_lungs` needs of slices.

    Args:
        coarse_hu: HU on the working grid.
        inside: air inside the body, without single pixels and thin lines.
        scale: width of the working grid over 256.
    """
    rows = coarse_hu.shape[-2]
    core = bit_mask.unpack(morphology.erode(inside, rows), rows)
    # Limits keep the sums in 32 bits; HU of air are far from them.
    hu = jnp.round(jnp.clip(coarse_hu, -4096, 4096)).astype(jnp.int32)
    half_width = max(1, round(_MEAN * scale))
    total = _box_sum(jnp.where(core, hu - _LOWEST_HU, 0), half_width)
    count = _box_sum(core.astype(jnp.int32), half_width)
    steps = total // (_STEP_HU * jnp.maximum(count, 1))
    level = jnp.where(core, jnp.clip(steps, 0, NO_AIR - 1), NO_AIR)
    return AirSlices(inside, level.astype(jnp.uint8))


def volume_lungs(
    found: AirSlices, gas_hu: float, scale: float
) -> UInt32[Array, "z n w"]:
    """Returns the lungs of a volume on the working grid, packed.

    Slices without air before the first or after the last one change nothing.

    Args:
        found: all slices of the volume, in order.
        gas_hu: HU below which air is no parenchyma, but in emphysema.
        scale: width of the working grid over 256.
    """
    inside, level = found
    rows = level.shape[-2]
    wide = morphology.erode_disc(inside, rows, round(_WIDE * scale))
    lung_level = _median_level(level, wide)
    depth = jnp.maximum(lung_level - _AIR_LEVEL, 0)
    lowest = round((gas_hu - _LOWEST_HU) / _STEP_HU)
    lowest = jnp.minimum(lung_level - depth // 2, lowest)
    gas, no_lung = _below(level, jnp.stack([lung_level - depth // 3, lowest]))
    airways = _airways(inside, gas, wide, rows, scale)
    rest = morphology.opening(inside & ~airways, rows)
    parenchyma = morphology.erode(rest & ~no_lung, rows)
    return _connected(flood_fill.flood_fill(parenchyma, rest))


def _airways(
    inside: jax.Array, gas: jax.Array, wide: jax.Array, rows: int, scale: float
) -> jax.Array:
    """Returns airways with their edges, and gas in the abdomen."""
    room = morphology.dilate_disc(wide, rows, round(_WIDE * scale))
    narrow = gas & ~room & ~_crowded(inside, rows, round(_AROUND * scale))
    alone = inside & ~flood_fill.flood_fill(wide, inside)
    lung = morphology.erode(morphology.erode(alone, rows) & ~gas, rows)
    alone = alone & ~flood_fill.flood_fill(lung, alone)
    alone = flood_fill.flood_fill(morphology.erode(alone & gas, rows), alone)
    start = bit_mask.where(_beyond(inside, wide), narrow & alone, jnp.zeros_like(gas))
    tube = flood_fill.flood_volume(start, narrow)
    rim = round(_RIM * scale)
    whole = morphology.grow(tube, gas, 2 * rim)
    edge = morphology.dilate_disc(whole, rows, rim)
    return (edge & inside) | flood_fill.flood_fill(tube, alone)


def _crowded(
    inside: UInt32[Array, "z n w"], rows: int, half_width: int
) -> UInt32[Array, "z n w"]:
    """Returns the pixels with air in at least half of the square around them."""

    def count(words: jax.Array) -> jax.Array:
        air = _box_sum(bit_mask.unpack(words, rows).astype(jnp.int32), half_width)
        return bit_mask.pack(2 * air >= (2 * half_width + 1) ** 2)

    return lax.map(count, inside)


def _beyond(
    inside: UInt32[Array, "z n w"], wide: UInt32[Array, "z n w"]
) -> Bool[Array, " z"]:
    """Returns which slices are before or after all wide air, or first or last."""
    has_air, has_wide = bit_mask.area(inside) > 0, bit_mask.area(wide) > 0

    def until(mask: jax.Array) -> jax.Array:
        return jnp.cumsum(mask) - mask == 0

    ends = has_air & (until(has_air) | until(has_air[::-1])[::-1])
    outer = ~has_wide & (until(has_wide) | until(has_wide[::-1])[::-1])
    return ends | outer


def _median_level(
    level: UInt8[Array, "z h w"], wide: UInt32[Array, "z n w"]
) -> Int32[Array, ""]:
    """Returns the median level of wide air; that of no air if there is none."""

    def count(slice_: tuple[jax.Array, jax.Array]) -> jax.Array:
        one, words = slice_
        mask = bit_mask.unpack(words, one.shape[-2])
        return jnp.bincount(jnp.where(mask, one, NO_AIR).ravel(), length=_LEVELS)

    counts = jnp.sum(lax.map(count, (level, wide)), axis=0, dtype=jnp.int32)[:NO_AIR]
    below = jnp.cumsum(counts)
    median = jnp.sum(below < (below[-1] + 1) // 2, dtype=jnp.int32)
    return jnp.where(below[-1] > 0, median, NO_AIR)


def _below(
    level: UInt8[Array, "z h w"], thresholds: Int32[Array, " k"]
) -> UInt32[Array, "k z n w"]:
    """Returns where the mean level of three slices is below each threshold, packed."""
    padded = jnp.pad(level, [(1, 1), (0, 0), (0, 0)], constant_values=NO_AIR)

    def compare(index: jax.Array) -> jax.Array:
        three = lax.dynamic_slice_in_dim(padded, index, 3).astype(jnp.int32)
        air = three != NO_AIR
        total = jnp.sum(jnp.where(air, three, 0), axis=0)
        count = jnp.sum(air, axis=0, dtype=jnp.int32)
        low = total[None] < thresholds[:, None, None] * count[None]
        return bit_mask.pack(low & air[1:2])

    return lax.map(compare, jnp.arange(len(level))).swapaxes(0, 1)


def _connected(lung: UInt32[Array, "z n w"]) -> UInt32[Array, "z n w"]:
    """Returns the part that is connected to the slice with the most lung.

    Pixels of that slice that no neighbour shares are no seed: they may be gas.
    """
    if len(lung) == 1:
        return lung
    largest = jnp.arange(len(lung)) == jnp.argmax(bit_mask.area(lung))
    nothing = jnp.zeros_like(lung[:1])
    before = jnp.concatenate([nothing, lung[:-1]])
    after = jnp.concatenate([lung[1:], nothing])
    seed = bit_mask.where(largest, lung & (before | after), jnp.zeros_like(lung))
    return flood_fill.flood_volume(seed, lung)


def _box_sum(values: Int32[Array, "*b h w"], half_width: int) -> Int32[Array, "*b h w"]:
    """Returns sums over squares of 2 `half_width` + 1 pixels; 0 beyond the border."""
    for axis in (values.ndim - 2, values.ndim - 1):
        edges = [(0, 0)] * values.ndim
        edges[axis] = (half_width, half_width)
        padded, size = jnp.pad(values, edges), values.shape[axis]
        values = sum(
            (
                lax.slice_in_dim(padded, i, i + size, axis=axis)
                for i in range(2 * half_width + 1)
            ),
            jnp.zeros_like(values),
        )
    return values
