"""Binary images packed 32 rows per word, so that a mask takes a few kilobytes.

Bit ``k`` of ``words[..., i, j]`` is pixel ``(32 i + k, j)``. A 512x512 mask is 16x512
words: one bitwise operation handles 32 pixels, neighbours above and below are bit
shifts, neighbours left and right are shifts of the last axis.

Invariant: bits of rows at or beyond the image's height are zero. `pack`, `shift` and
every function made of AND or OR keep it. A complement does not: write
``frame(h, w) & ~words``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt32

BITS = 32


def pack(mask: Bool[Array, "*b h w"]) -> UInt32[Array, "*b n w"]:
    """Packs a boolean image into ``n = ceil(h / 32)`` words; missing rows are unset."""
    *batch, height, width = mask.shape
    count = -(-height // BITS)
    missing = count * BITS - height
    padding = [(0, 0)] * len(batch) + [(0, missing), (0, 0)]
    rows = jnp.pad(mask, padding) if missing else mask
    rows = rows.reshape(*batch, count, BITS, width)
    weight = jnp.left_shift(jnp.uint32(1), jnp.arange(BITS, dtype=jnp.uint32))
    weight = weight.reshape((1,) * (len(batch) + 1) + (BITS, 1))
    return jnp.sum(jnp.where(rows, weight, jnp.uint32(0)), axis=-2, dtype=jnp.uint32)


def unpack(words: UInt32[Array, "*b n w"], height: int) -> Bool[Array, "*b h w"]:
    """Unpacks words to a boolean image of `height` rows: the inverse of `pack`."""
    *batch, count, width = words.shape
    if not 0 <= -(-height // BITS) <= count:
        raise ValueError(
            f"{count} rows of words hold at most {count * BITS} rows of pixels, "
            f"got height={height}; pass the height that was packed"
        )
    bit = jnp.arange(BITS, dtype=jnp.uint32)
    bit = bit.reshape((1,) * (len(batch) + 1) + (BITS, 1))
    rows = (words[..., None, :] >> bit) & jnp.uint32(1)
    rows = rows.reshape(*batch, count * BITS, width)[..., :height, :]
    return rows.astype(bool)


def frame(height: int, width: int) -> UInt32[np.ndarray, "n w"]:
    """Returns words with every pixel of a `height` x `width` image set."""
    return _pack_static(np.ones((height, width), bool))


def border(height: int, width: int, margin: int = 1) -> UInt32[np.ndarray, "n w"]:
    """Returns words with the outermost `margin` rows and columns set."""
    mask = np.ones((height, width), bool)
    mask[margin : height - margin, margin : width - margin] = False
    return _pack_static(mask)


def corner(height: int, width: int) -> UInt32[np.ndarray, "n w"]:
    """Returns words with only pixel (0, 0) set."""
    mask = np.zeros((height, width), bool)
    mask[0, 0] = True
    return _pack_static(mask)


def frame_like(words: UInt32[Array, "*b n w"], height: int) -> UInt32[Array, "*b n w"]:
    """Returns `frame` of `height` rows, repeated over the batch of `words`."""
    return like(frame(height, words.shape[-1]), words)


def like(
    constant: UInt32[np.ndarray, "n w"], words: UInt32[Array, "*b n w"]
) -> UInt32[Array, "*b n w"]:
    """Repeats `constant` over the batch of `words`."""
    return jnp.broadcast_to(jnp.asarray(constant), words.shape)


def shift(
    words: UInt32[Array, "*b n w"], rows: int = 0, columns: int = 0
) -> UInt32[Array, "*b n w"]:
    """Moves the image down by `rows` and right by `columns`; unset pixels enter.

    If the height is not a multiple of 32, rows that leave the image at its lower end
    enter the padding bits. Where that matters, mask the result with `frame`, or AND it
    with any mask that keeps the invariant.
    """
    words = _shift_axis(words, -1, columns)
    if not rows:
        return words
    whole, bits = divmod(abs(rows), BITS)
    sign = 1 if rows > 0 else -1
    near = _shift_axis(words, -2, sign * whole)
    if not bits:
        return near
    far = _shift_axis(words, -2, sign * (whole + 1))
    if rows > 0:
        return (near << bits) | (far >> (BITS - bits))
    return (near >> bits) | (far << (BITS - bits))


def area(words: UInt32[Array, "*b n w"]) -> Int32[Array, "*b"]:
    """Returns the number of set pixels of each image."""
    return jnp.sum(lax.population_count(words).astype(jnp.int32), axis=(-2, -1))


def where(
    condition: Bool[Array, "*b"],
    words: UInt32[Array, "*b n w"],
    otherwise: UInt32[Array, "*b n w"],
) -> UInt32[Array, "*b n w"]:
    """Returns `words` for images whose condition is True, else `otherwise`."""
    return jnp.where(condition[..., None, None], words, otherwise)


def _shift_axis(words: jax.Array, axis: int, offset: int) -> jax.Array:
    """Shifts along one axis of words; zeros enter, large offsets give zeros."""
    size = words.shape[axis]
    if not offset:
        return words
    if abs(offset) >= size:
        return jnp.zeros_like(words)
    # XLA's pad with a negative edge both cuts and pads.
    edges = [(0, 0, 0)] * words.ndim
    edges[axis] = (offset, -offset, 0)
    return lax.pad(words, jnp.uint32(0), edges)


def _pack_static(mask: np.ndarray) -> np.ndarray:
    """Packs in NumPy, for masks that depend on shapes alone."""
    height, width = mask.shape
    count = -(-height // BITS)
    rows = np.zeros((count * BITS, width), np.uint32)
    rows[:height] = mask
    bit = np.arange(BITS, dtype=np.uint32)[None, :, None]
    return np.bitwise_or.reduce(rows.reshape(count, BITS, width) << bit, axis=1)
