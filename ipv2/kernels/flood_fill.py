"""Flood fill and connected components of packed masks (`bit_mask`), 4-connected.

A pass floods whole columns and whole rows instead of one pixel a step, and a fill ends
when a pass changes nothing. Chest CT takes 3 to 8 passes; a spiral takes one for each
of its turns, and is still exact.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int32, UInt32

from ipv2.kernels import bit_mask


def flood_fill(
    seed: UInt32[Array, "*b n w"], passable: UInt32[Array, "*b n w"]
) -> UInt32[Array, "*b n w"]:
    """Pixels of `passable` that are 4-connected to a pixel of `seed` within it.

    The smallest ``x`` with ``x >= seed & passable`` and
    ``x = passable & dilate_cross(x)``. Integer words: no gradient.

    Args:
        seed: where the fill starts; pixels outside `passable` do not count.
        passable: where the fill may go.
    """
    return flood_fill_passes(seed, passable)[0]


def flood_fill_passes(
    seed: UInt32[Array, "*b n w"], passable: UInt32[Array, "*b n w"]
) -> tuple[UInt32[Array, "*b n w"], Int32[Array, ""]]:
    """`flood_fill` and the number of passes it took, the last of which was idle."""
    # Scans run over the leading axis: columns lead here, rows of words in
    # `_flood_columns`, and the batch comes last, where neighbours are contiguous.
    # Measured on XLA:CPU at 8 x 512 x 512: 0.5 ms a pass, against 2.7 ms for
    # Kogge-Stone steps of 1, 2, 4, ... columns.
    shape = passable.shape
    passable = passable.reshape(-1, *shape[-2:]).transpose(2, 1, 0)
    start = seed.reshape(-1, *shape[-2:]).transpose(2, 1, 0) & passable

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def flood(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        reached, _, passes = state
        grown = _flood_columns(_flood_rows(reached, passable), passable)
        return grown, jnp.any(grown != reached), passes + 1

    state = (start, jnp.bool_(True), jnp.int32(0))
    reached, _, passes = lax.while_loop(unfinished, flood, state)
    return reached.transpose(2, 1, 0).reshape(shape), passes


def flood_volume(
    seed: UInt32[Array, "*b z n w"], passable: UInt32[Array, "*b z n w"]
) -> UInt32[Array, "*b z n w"]:
    """`flood_fill` in three dimensions: slices `z` in order, 6-connected."""
    through = jnp.moveaxis(passable, -3, 0)

    def step(
        carry: jax.Array, plane: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        reached, mask = plane
        reached = reached | (carry & mask)
        return reached, reached

    def unfinished(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def flood(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reached = state[0]
        grown = jnp.moveaxis(flood_fill(reached, passable), -3, 0)
        nothing = jnp.zeros_like(grown[0])
        _, grown = lax.scan(step, nothing, (grown, through))
        _, grown = lax.scan(step, nothing, (grown, through), reverse=True)
        grown = jnp.moveaxis(grown, 0, -3)
        return grown, jnp.any(grown != reached)

    return lax.while_loop(unfinished, flood, (seed & passable, jnp.bool_(True)))[0]


def largest_component(words: UInt32[Array, "*b n w"]) -> UInt32[Array, "*b n w"]:
    """The 4-connected component with the most pixels; of equals, the first found.

    The search ends as soon as what is left cannot beat the best. An empty mask stays
    empty.
    """

    def worth_it(left: jax.Array, best: jax.Array) -> jax.Array:
        return bit_mask.area(left) > bit_mask.area(best)

    def keep_larger(component: jax.Array, best: jax.Array) -> jax.Array:
        larger = bit_mask.area(component) > bit_mask.area(best)
        return bit_mask.where(larger, component, best)

    return fold_components(words, keep_larger, worth_it)


def fold_components(
    words: UInt32[Array, "*b n w"],
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    worth_it: Callable[[jax.Array, jax.Array], jax.Array],
) -> UInt32[Array, "*b n w"]:
    """`combine(component, kept)` over the 4-connected components, one after another.

    Components of the images of a batch are taken in step, each from its fullest word,
    which lies in a large component: the big ones tend to come first.

    Args:
        words: the mask.
        combine: the new kept mask; an exhausted image contributes empty components.
        worth_it: from (what is left, kept), for each image, whether to go on.
    """

    def unfinished(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(worth_it(*state))

    def take_one(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, kept = state
        component = flood_fill(one_pixel(left), left)
        return left & ~component, combine(component, kept)

    start = (words, jnp.zeros_like(words))
    return lax.while_loop(unfinished, take_one, start)[1]


def one_pixel(words: UInt32[Array, "*b n w"]) -> UInt32[Array, "*b n w"]:
    """One set pixel of each image, in its fullest word; none where it is empty."""
    *batch, count, width = words.shape
    flat = words.reshape(*batch, count * width)
    fullest = jnp.argmax(lax.population_count(flat), axis=-1)
    index = jnp.arange(count * width, dtype=fullest.dtype)
    index = index.reshape((1,) * len(batch) + (-1,))
    chosen = jnp.where(index == fullest[..., None], flat, jnp.uint32(0))
    lowest = chosen & (~chosen + jnp.uint32(1))
    return lowest.reshape(words.shape)


def _flood_rows(reached: jax.Array, passable: jax.Array) -> jax.Array:
    """Flood along rows, to the right and back, one column a step."""

    def step(
        carry: jax.Array, column: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        seed, mask = column
        seed = seed | (carry & mask)
        return seed, seed

    nothing = jnp.zeros_like(reached[0])
    _, reached = lax.scan(step, nothing, (reached, passable))
    _, reached = lax.scan(step, nothing, (reached, passable), reverse=True)
    return reached


def _flood_columns(reached: jax.Array, passable: jax.Array) -> jax.Array:
    """Flood along columns, downwards and back, one word (32 rows) a step."""
    reached = reached.swapaxes(0, 1)
    passable = passable.swapaxes(0, 1)
    nothing = jnp.zeros_like(reached[0])

    def down(
        carry: jax.Array, row: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        seed, mask = row
        seed = seed | (carry & mask)
        # Adding the seeds lets a carry run up each run of set bits; the bits it
        # cleared are the ones above the lowest seed of that run.
        seed = (mask & ~(mask + seed)) | seed
        return seed >> 31, seed

    def up(
        carry: jax.Array, row: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        seed, mask = row
        seed = seed | ((carry << 31) & mask)
        # No carry runs towards the low bits: steps of 1, 2, 4, ... within the word.
        free = mask
        for step in (1, 2, 4, 8, 16):
            seed = seed | (free & (seed >> step))
            free = free & (free >> step)
        return seed & jnp.uint32(1), seed

    _, reached = lax.scan(down, nothing, (reached, passable))
    _, reached = lax.scan(up, nothing, (reached, passable), reverse=True)
    return reached.swapaxes(0, 1)
