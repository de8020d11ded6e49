"""What a CT file may hold: pixels that were not measured, and the range of the rest."""

import jax
import numpy as np
from jaxtyping import Array, Bool, Float32

from ipv2.ct_io import PADDING_HU
from ipv2.kernels import bit_mask
from ipv2.kernels.flood_fill import flood_fill

# 12 bits from -1024 HU; else what int16 holds from there, above what marks padding.
_TWELVE_BITS = (PADDING_HU, 3071.0)
_SIXTEEN_BITS = (-1999.0, 32767.0 + PADDING_HU)


@jax.jit
def padding(hu: Float32[Array, "b h w"]) -> Bool[Array, "b h w"]:
    """Pixels that were not measured: PADDING_HU, 4-connected to the border through it.

    Noise of air that a scanner clips at -1024 HU is left alone: it does not percolate
    along four neighbours before 59 % of the pixels are clipped.
    """
    height, width = hu.shape[-2:]
    empty = bit_mask.pack(hu == PADDING_HU)
    border = bit_mask.like(bit_mask.border(height, width), empty)
    return bit_mask.unpack(flood_fill(border, empty), height)


def stored_range(hu: np.ndarray) -> tuple[float, float]:
    """(lowest, highest) HU to store: where the scanner of the input clips, so it is.

    12 bits from -1024 HU, as most scanners store, wherever the input keeps to them: air
    that is as noisy as that clips. An input beyond either end has an own scale: then
    int16, above -2000, which readers take for padding.
    """
    ends = zip(_TWELVE_BITS, _SIXTEEN_BITS, strict=True)
    (low, lower), (high, higher) = ends
    return (
        low if hu.min() >= low else lower,
        high if hu.max() <= high else higher,
    )
