"""What a CT file may hold: pixels that were not measured, and the range of the rest."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32

from ipv2.ct_io import PADDING_HU, Slice
from ipv2.kernels import bit_mask
from ipv2.kernels.flood_fill import flood_fill

# 12 bits from -1024 HU; else what int16 holds from there, above what marks padding.
_TWELVE_BITS = (PADDING_HU, 3071.0)
_SIXTEEN_BITS = (-1999.0, 32767.0 + PADDING_HU)
# What readers take for padding wherever it stands, see `ct_io`.
ALWAYS_PADDING_HU = -2000.0
# Of int16: a stored -32768 with an intercept of -1024 lies below it, and is padding.
_LOWEST = -32768.0


def restored(
    original: Slice, hu: np.ndarray, limits: tuple[float, float]
) -> np.ndarray:
    """A result as the input's file would hold it.

    Clipped to a range. What was not measured is what it was. Where the file marks
    padding, that alone is meant: it gets its own value back where every reader knows it
    again, -2000 HU and less, as far as int16 goes; values that only PixelPaddingValue
    marked become -1024 HU, since that attribute, which is in stored values, goes with
    the input's. Where the file marks none, it is the pixels of -1024 HU that `padding`
    finds.

    Args:
      original: the slice that was read.
      hu: float32 (rows, columns), what was made of it.
      limits: (lowest, highest) HU, see `stored_range`.
    """
    hu = np.clip(hu, *limits)
    outside = original.stored != original.hu
    if not outside.any() and (original.hu == PADDING_HU).any():
        outside = np.asarray(padding(jnp.asarray(original.hu[None])))[0]
    marked = np.maximum(original.stored, _LOWEST)
    kept = np.where(marked <= ALWAYS_PADDING_HU, marked, PADDING_HU)
    return np.where(outside, kept, hu).astype(np.float32)


@jax.jit
def padding(hu: Float32[Array, "b h w"]) -> Bool[Array, "b h w"]:
    """Pixels that were not measured: PADDING_HU, 4-connected to the border through it.

    Air that a scanner clips at -1024 HU is left alone, also at the border: what counts
    is 16 such pixels in a row, in a column, or in a square of 4 x 4. Of noisy air of
    which half is clipped, one place in 65,000 looks so. What lies outside the circle
    that scanners reconstruct consists of such rows and columns, thin as it gets where
    the circle touches the border.
    """
    height, width = hu.shape[-2:]
    empty = hu == PADDING_HU
    empty = _opened(empty, 1, 16) | _opened(empty, 16, 1) | _opened(empty, 4, 4)
    packed = bit_mask.pack(empty)
    border = bit_mask.like(bit_mask.border(height, width), packed)
    return bit_mask.unpack(flood_fill(border, packed), height)


def _opened(mask: Bool[Array, "b h w"], rows: int, columns: int) -> Array:
    """The pixels that a set rectangle covers; its sides are powers of two."""
    steps = [
        (axis, 1 << power)
        for axis, size in ((1, rows), (2, columns))
        for power in range(size.bit_length() - 1)
    ]
    for axis, step in steps:  # to where a rectangle begins
        mask &= _moved(mask, axis, -step)
    for axis, step in steps:  # and back to all that it covers
        mask |= _moved(mask, axis, step)
    return mask


def _moved(mask: Bool[Array, "b h w"], axis: int, step: int) -> Array:
    """The mask moved by `step` pixels; nothing comes in over the border."""
    width = [(0, 0)] * 3
    width[axis] = (max(step, 0), max(-step, 0))
    length = mask.shape[axis]
    start = max(-step, 0)
    return jax.lax.slice_in_dim(jnp.pad(mask, width), start, start + length, axis=axis)


def stored_range(lowest: float, highest: float) -> tuple[float, float]:
    """(lowest, highest) HU to store: where the scanner of the input clips, so it is.

    12 bits from -1024 HU, as most scanners store, wherever the input keeps to them: air
    that is as noisy as that clips. An input beyond either end has an own scale: then
    int16, above -2000, which readers take for padding.

    Args:
      lowest: value of the input, HU.
      highest: value of the input, HU.
    """
    ends = zip(_TWELVE_BITS, _SIXTEEN_BITS, strict=True)
    (low, lower), (high, higher) = ends
    return (low if lowest >= low else lower, high if highest <= high else higher)
