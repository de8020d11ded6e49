"""Grids of few-bit integers, and conversions of values to and from them.

Scale s and zero point z of a range [low, high] on a grid of integers qmin ... qmax:

    low <- min(low, 0),  high <- max(high, 0)         so 0 is exactly on the grid
    asymmetric:  s = (high - low) / qmax,     z = round(-low / s)
    symmetric:   s = max(-low, high) / qmax,  z = 0

    q = clip(round(x / s) + z, qmin, qmax)            an integer, held in a float32
    y = (q - z) * s

Rounding is half to even. x / s is computed as x * (1 / s). This gives the same result
whether or not the scale is a constant of the compiled function, so codes do not depend
on jit.

A range of width 0, or so narrow that s is not a normal float32, gets s = 1. An infinite
x becomes the grid's end, a NaN stays NaN. A range of infinite width or with a NaN makes
every y NaN, so that the loss shows it.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

MIN_BITS, MAX_BITS = 2, 8
TINY = jnp.finfo(jnp.float32).tiny


@dataclasses.dataclass(frozen=True)
class Grid:
    """The integers of rounded values.

    Attributes:
      bits: 2 to 8.
      symmetric: Whether the integers are -(2^(bits-1) - 1) ... 2^(bits-1) - 1, with
        zero point 0; else they are 0 ... 2^bits - 1.
    """

    bits: int
    symmetric: bool = False

    def __post_init__(self):
        """Raises ValueError for another number of bits."""
        whole = isinstance(self.bits, int) and not isinstance(self.bits, bool)
        if not whole or not MIN_BITS <= self.bits <= MAX_BITS:
            raise ValueError(
                f"bits must be a whole number from {MIN_BITS} to {MAX_BITS}, got "
                f"{self.bits!r}"
            )

    @property
    def qmin(self) -> int:
        """The lowest code."""
        return -self.qmax if self.symmetric else 0

    @property
    def qmax(self) -> int:
        """The highest code."""
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1


def scale_and_zero_point(
    low: Float[Array, "*c"], high: Float[Array, "*c"], grid: Grid
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    """Returns scales and zero points of the grids that cover [low, high] and 0.

    Args:
      low: Lower ends, one for every range.
      high: Upper ends.
      grid: The integers.

    Returns:
      Scales, above 0, and zero points, integers from qmin to qmax; float32.
    """
    step = step_of(low, high, grid)
    scale = jnp.where(step < TINY, 1.0, step)
    if grid.symmetric:
        return scale, jnp.zeros_like(scale)
    # -low as |low|: a zero point of -0 would give values of -0.
    below_zero = jnp.abs(widened(low, high)[0])
    return scale, jnp.minimum(jnp.round(below_zero * (1 / scale)), grid.qmax)


def quantize(
    x: Float[Array, "*shape"],
    scale: Float[Array, "..."],
    zero_point: Float[Array, "..."],
    grid: Grid,
) -> Float[Array, "*shape"]:
    """Returns the codes of `x`: integers from qmin to qmax, in float32 (NaN for NaN).

    Args:
      x: Values.
      scale: One for all of `x`, shape (), or one for every channel of its last axis,
        (c,) or (1, ..., 1, c).
      zero_point: Like `scale`.
      grid: The integers.
    """
    scale, zero_point = against(x, scale), against(x, zero_point)
    steps = jnp.round(x.astype(jnp.float32) * (1 / scale))
    return jnp.clip(steps + zero_point, grid.qmin, grid.qmax)


def dequantize(
    q: Float[Array, "*shape"],
    scale: Float[Array, "..."],
    zero_point: Float[Array, "..."],
) -> Float[Array, "*shape"]:
    """Returns the values of the codes `q`, (q - zero_point) * scale, in float32."""
    return (q.astype(jnp.float32) - against(q, zero_point)) * against(q, scale)


def widened(low: Array, high: Array) -> tuple[Array, Array]:
    """Returns the range, extended to include 0."""
    low, high = low.astype(jnp.float32), high.astype(jnp.float32)
    return jnp.minimum(low, 0), jnp.maximum(high, 0)


def step_of(low: Array, high: Array, grid: Grid) -> Array:
    """Returns the scale before the replacement of those that are not normal floats."""
    low, high = widened(low, high)
    width = jnp.maximum(-low, high) if grid.symmetric else high - low
    return width * np.float32(1 / grid.qmax)


def against(x: Array, values: Array) -> Array:
    """Returns `values`, one for `x` or one for every channel, with the rank of `x`."""
    shape = values.shape
    if shape == ():
        return values
    channels = x.shape[-1:]
    if shape[-1:] != channels or shape[:-1] != (1,) * (len(shape) - 1):
        raise ValueError(
            f"ranges, scales and zero points have shape (), {channels} or (1, ..., "
            f"{x.shape[-1]}) for values of {x.shape}, got {shape}"
        )
    return values.reshape((1,) * (x.ndim - 1) + channels)
