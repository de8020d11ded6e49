"""Binary morphology on packed masks (`bit_mask`), by shifts, AND and OR.

The border follows OpenCV: pixels outside the image never count, so an erosion does not
start at the border and a dilation adds nothing from outside.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, UInt32

from ipv2.kernels import bit_mask
from ipv2.kernels.bit_mask import shift


def dilate(words: UInt32[Array, "*b n w"], height: int) -> UInt32[Array, "*b n w"]:
    """Dilation by the 3x3 cross, OpenCV's 3x3 ellipse."""
    return dilate_disc(words, height, 1)


def erode(words: UInt32[Array, "*b n w"], height: int) -> UInt32[Array, "*b n w"]:
    """Erosion by the 3x3 cross, OpenCV's 3x3 ellipse."""
    return _complement(dilate(_complement(words, height), height), height)


def opening(words: UInt32[Array, "*b n w"], height: int) -> UInt32[Array, "*b n w"]:
    """Erosion, then dilation, by the 3x3 cross."""
    return dilate(erode(words, height), height)


def dilate_disc(
    words: UInt32[Array, "*b n w"], height: int, radius: int
) -> UInt32[Array, "*b n w"]:
    """Dilation by an octagon of `radius` pixels: crosses and squares in turn.

    Crosses alone grow a diamond, squares alone a square. Alternating them stays within
    a pixel or two of the Euclidean disc for the radii used here (up to 10).
    """
    if radius < 0:
        raise ValueError(f"radius must be at least 0, got {radius}")
    inside = bit_mask.frame_like(words, height)

    # Keep this a loop: XLA would fuse a chain of steps and recompute each step for
    # every neighbour of the next one (radius 10: 30 ms; as a loop 1 ms).
    def spread(step: jax.Array, mask: jax.Array) -> jax.Array:
        tall = shift(mask, 1) | mask | shift(mask, -1)
        wide = jnp.where(step % 2 == 1, tall, mask)
        return (tall | shift(wide, 0, 1) | shift(wide, 0, -1)) & inside

    return lax.fori_loop(0, radius, spread, words)


def erode_disc(
    words: UInt32[Array, "*b n w"], height: int, radius: int
) -> UInt32[Array, "*b n w"]:
    """Erosion by the octagon of `dilate_disc`."""
    outside = _complement(words, height)
    return _complement(dilate_disc(outside, height, radius), height)


def opening_disc(
    words: UInt32[Array, "*b n w"], height: int, radius: int
) -> UInt32[Array, "*b n w"]:
    """Opening by the octagon of `dilate_disc`."""
    return dilate_disc(erode_disc(words, height, radius), height, radius)


def closing_disc(
    words: UInt32[Array, "*b n w"], height: int, radius: int
) -> UInt32[Array, "*b n w"]:
    """Closing by the octagon of `dilate_disc`."""
    return erode_disc(dilate_disc(words, height, radius), height, radius)


def grow(
    words: UInt32[Array, "*b n w"], within: UInt32[Array, "*b n w"], steps: int
) -> UInt32[Array, "*b n w"]:
    """Grows the mask by `steps` 4-connected steps inside `within`."""

    def step(_: jax.Array, mask: jax.Array) -> jax.Array:
        around = shift(mask, 1) | shift(mask, -1) | shift(mask, 0, 1)
        return mask | ((around | shift(mask, 0, -1)) & within)

    return lax.fori_loop(0, steps, step, words)


def has_neighbour(words: UInt32[Array, "*b n w"]) -> UInt32[Array, "*b n w"]:
    """Keeps set pixels with at least one set pixel among their 8 neighbours."""
    beside = shift(words, 1) | shift(words, -1)
    tall = beside | words
    return words & (beside | shift(tall, 0, 1) | shift(tall, 0, -1))


def majority(words: UInt32[Array, "*b n w"], height: int) -> UInt32[Array, "*b n w"]:
    """Binary median: sets pixels whose 3x3 block has at least 5 of 9 pixels set.

    Bit-sliced addition makes 32 counts at a time, with one word for each binary digit.
    Pixels outside the image are unset.
    """
    above, below = shift(words, 1), shift(words, -1)
    ones = above ^ words ^ below
    twos = (above & words) | (below & (above ^ words))
    low, carry_low = _add3(shift(ones, 0, 1), ones, shift(ones, 0, -1))
    mid, carry_mid = _add3(shift(twos, 0, 1), twos, shift(twos, 0, -1))
    # count = low + 2 (mid + carry_low) + 4 carry_mid, and mid + carry_low <= 2.
    two = mid ^ carry_low
    four_again = mid & carry_low
    four, eight = carry_mid ^ four_again, carry_mid & four_again
    at_least_5 = eight | (four & (two | low))
    return at_least_5 & bit_mask.frame_like(words, height)


def _add3(a: jax.Array, b: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns sum digit and carry digit of three one-bit numbers."""
    return a ^ b ^ c, (a & b) | (c & (a ^ b))


def _complement(words: jax.Array, height: int) -> jax.Array:
    return bit_mask.frame_like(words, height) & jnp.bitwise_not(words)
