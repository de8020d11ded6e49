"""Stored codes of a grid: 8-bit integers q' with zero points z'.

    y = (q' - z') * s,    bit for bit (q - z) * s

| grid | q' | z' | dtype |
|---|---|---|---|
| symmetric | q | 0 | int8 |
| 2 to 7 bits | q - z, from -127 to 127 | 0 | int8 |
| 8 bits | q | z | uint8 |

Fast integer kernels need a zero point of 0 for weights. q - z is the exact number of
steps of a weight. It fits because the zero point is on the grid. At 8 bits it would
need 9 bits; use a symmetric grid to avoid the zero point there.

Activations have no stored codes. Their zero point z is stored as uint8, or as int8 0
for a symmetric grid.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, UInt8

from acq.kernels.grid import MAX_BITS, Grid, dequantize, quantize


def to_codes(
    x: Float[Array, "*shape c"],
    scale: Float[Array, "c"],
    zero_point: Float[Array, "c"],
    grid: Grid,
) -> tuple[
    Int8[Array, "*shape c"] | UInt8[Array, "*shape c"],
    Int8[Array, "c"] | UInt8[Array, "c"],
]:
    """Returns stored codes of `x` and zero points, both of dtype `code_dtype(grid)`.

    Args:
      x: Finite values: integers have no NaN.
      scale: Of each channel of the last axis.
      zero_point: Of each channel of the last axis.
      grid: The integers.
    """
    codes = quantize(x, scale, zero_point, grid)
    dtype = code_dtype(grid)
    if dtype == jnp.uint8 or grid.symmetric:
        return codes.astype(dtype), zero_point.astype(dtype)
    shifted = codes - zero_point.reshape((1,) * (x.ndim - 1) + (-1,))
    return shifted.astype(dtype), jnp.zeros_like(zero_point, dtype)


def from_codes(
    codes: Int8[Array, "*shape c"] | UInt8[Array, "*shape c"],
    scale: Float[Array, "c"],
    zero_point: Int8[Array, "c"] | UInt8[Array, "c"],
) -> Float[Array, "*shape c"]:
    """Returns the values of stored codes, (q' - z') * s, in float32."""
    return dequantize(codes.astype(jnp.float32), scale, zero_point.astype(jnp.float32))


def code_dtype(grid: Grid) -> jnp.dtype:
    """Returns the dtype of stored weights: uint8 for 8 asymmetric bits, else int8."""
    unsigned = grid.bits == MAX_BITS and not grid.symmetric
    return jnp.dtype(jnp.uint8 if unsigned else jnp.int8)


def zero_point_dtype(grid: Grid) -> jnp.dtype:
    """Returns the dtype of stored zero points of activations."""
    return jnp.dtype(jnp.int8 if grid.symmetric else jnp.uint8)
