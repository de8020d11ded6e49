"""The HU that a CT file may hold: padding pixels, and the range of all others."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32

from ipv2.ct_io import PADDING_HU, Slice
from ipv2.ct_io.dicom_padding import ALWAYS_PADDING_HU
from ipv2.kernels import bit_mask
from ipv2.kernels.flood_fill import flood_fill

# 12 bits from -1024 HU, or int16 without the values that mark padding.
_TWELVE_BITS = (PADDING_HU, 3071.0)
_SIXTEEN_BITS = (-1999.0, 32767.0 + PADDING_HU)

# The lowest int16. A stored -32768 with an intercept of -1024 lies below: padding.
_LOWEST = -32768.0


def restored(
    original: Slice, hu: np.ndarray, limits: tuple[float, float]
) -> np.ndarray:
    """Returns a result as the input's file would hold it.

    The result is clipped to a range, and padding pixels get their value back. If the
    file marks padding, these are the marked pixels. Values of -2000 HU and less, which
    every reader takes as padding, come back unchanged, as far as int16 reaches. Values
    that only PixelPaddingValue marked become -1024 HU: that attribute refers to the
    stored values of the input. If the file marks no padding, the padding pixels are
    those that `padding` finds.

    Args:
      original: the slice that was read.
      hu: float32 (rows, columns), the result made from it.
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
    """Returns a mask of the pixels that were not measured.

    These are the pixels of PADDING_HU that connect to the border (4-connected) through
    pixels of PADDING_HU. Only runs of 16 such pixels in a row or a column and squares
    of 4 x 4 count, so air that a scanner clips at -1024 HU is not padding, not even at
    the border: in noisy air, half of it clipped, one place in 65,000 looks like
    padding. The area outside a scanner's circle consists of such rows and columns,
    however thin it is where the circle touches the border.
    """
    height, width = hu.shape[-2:]
    empty = hu == PADDING_HU
    empty = _opened(empty, 1, 16) | _opened(empty, 16, 1) | _opened(empty, 4, 4)
    packed = bit_mask.pack(empty)
    border = bit_mask.like(bit_mask.border(height, width), packed)
    return bit_mask.unpack(flood_fill(border, packed), height)


def _opened(mask: Bool[Array, "b h w"], rows: int, columns: int) -> Array:
    """Opens by a rectangle, whose sides are powers of two."""
    steps = [
        (axis, 1 << power)
        for axis, size in ((1, rows), (2, columns))
        for power in range(size.bit_length() - 1)
    ]
    for axis, step in steps:  # erode to the first pixel of each rectangle
        mask &= _moved(mask, axis, -step)
    for axis, step in steps:  # dilate to all pixels of each rectangle
        mask |= _moved(mask, axis, step)
    return mask


def _moved(mask: Bool[Array, "b h w"], axis: int, step: int) -> Array:
    """Returns the mask moved by `step` pixels; False enters at the border."""
    width = [(0, 0)] * 3
    width[axis] = (max(step, 0), max(-step, 0))
    length = mask.shape[axis]
    start = max(-step, 0)
    return jax.lax.slice_in_dim(jnp.pad(mask, width), start, start + length, axis=axis)


def stored_range(lowest: float, highest: float) -> tuple[float, float]:
    """Returns (lowest, highest) HU to store: where the input's scanner clips.

    Each end is that of 12 bits from -1024 HU, as most scanners store, if the input does
    not exceed it. Otherwise it is that of int16, above -2000, which marks padding.

    Args:
      lowest: lowest value of the input, HU.
      highest: highest value of the input, HU.
    """
    (low, wide_low), (high, wide_high) = zip(_TWELVE_BITS, _SIXTEEN_BITS, strict=True)
    return (
        low if lowest >= low else wide_low,
        high if highest <= high else wide_high,
    )
