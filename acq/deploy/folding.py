"""Batch normalisation folded into a kernel of integers, and its bias as integers.

An integer convolution computes, with codes x of scale s and zero point z, codes w of
scale t for each output channel, and an integer bias b,

    y = s t (sum (x - z) w + b)

Batch normalisation multiplies y by a factor f and adds a shift. The factor's size goes
into the scale, t |f|, and its sign into the codes. Both are exact. The shift becomes
b = round(shift / (s t |f|)).

Codes of few bits are multiplied by a power of two and the scale is divided by it. That
is exact. So b, rounded to steps of the input's scale times the kernel's, is 8 times
finer with weights of 4 bits.

If b would not fit into 32 bits with the sum, the channel hardly depends on its input.
Such a channel gets a larger scale, and its codes are rounded to it.

x86 processors without VNNI add two products x w in 16 bits and saturate. They cannot if
2 x w is at most 32,767 for the highest x and w: with 8-bit inputs, if no code of the
kernel is above 64. Multiplied codes stay in that range. Codes of 7 and 8 bits may not,
and `saturates` says so.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int8, Int32

# The sum of a convolution has the other half: room for 2^30 / (255 * 127) weights.
_LARGEST_BIAS = 2.0**30
_LARGEST_CODE, _LARGEST_PAIR = 127, 2**15 - 1
_TINY = float(np.finfo(np.float32).tiny)


class Kernel(NamedTuple):
    """A folded kernel.

    Attributes:
      codes: output channels last, zero point 0.
      scale: of each output channel, above 0.
      bias: of each output channel, in units of `bias_scale`.
      bias_scale: of the input times that of the kernel.
      saturates: whether x86 processors without VNNI may compute it wrongly.
    """

    codes: Int8[np.ndarray, "*shape o"]
    scale: Float[np.ndarray, "o"]
    bias: Int32[np.ndarray, "o"]
    bias_scale: Float[np.ndarray, "o"]
    saturates: bool


def fold(
    codes: Int8[np.ndarray, "*shape o"],
    scale: Float[np.ndarray, "o"],
    factor: Float[np.ndarray, "o"],
    shift: Float[np.ndarray, "o"],
    input_scale: float,
    highest_input: int,
) -> Kernel:
    """Returns the kernel of factor * (sum of inputs * codes * scale) + shift.

    Args:
      codes: from -127 to 127.
      scale: above 0.
      factor: of any sign; 0 gives codes of 0.
      shift: added at the end.
      input_scale: of the input's codes, above 0.
      highest_input: the highest of them, up to 255.
    """
    safe = min(_LARGEST_CODE, _LARGEST_PAIR // (2 * highest_input))
    codes, scale = _multiplied(codes, np.asarray(scale, np.float64), safe)
    wide = scale * np.abs(np.asarray(factor, np.float64))
    least = np.abs(np.asarray(shift, np.float64)) / (input_scale * _LARGEST_BIAS)
    folded = np.maximum(wide, least)
    folded = np.where(folded * input_scale < _TINY, 1.0, folded).astype(np.float32)
    # Exactly 1 or -1 but for channels with another scale than their own.
    share = np.where(folded == wide.astype(np.float32), 1.0, wide / folded)
    signed = np.rint(codes * (np.sign(factor) * share)).astype(np.int8)
    bias_scale = (folded * np.float32(input_scale)).astype(np.float32)
    bias = np.rint(shift / bias_scale.astype(np.float64)).astype(np.int32)
    saturates = int(np.max(np.abs(codes))) > safe
    return Kernel(signed, folded, bias, bias_scale, saturates)


def _multiplied(
    codes: np.ndarray, scale: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns codes of each channel as large as a power of two makes them."""
    codes = codes.astype(np.int32)
    largest = np.max(np.abs(codes), axis=tuple(range(codes.ndim - 1)))
    room = np.maximum(limit // np.maximum(largest, 1), 1)
    factor = 2 ** np.floor(np.log2(room)).astype(np.int32)
    return codes * factor, scale / factor
