"""Quantization simulated in floats, with three straight-through gradients.

    y = (clip(round(x / s) + z, qmin, qmax) - z) * s

with scale s and zero point z of a range [low, high] as in `grid.py`: rounding is half
to even, 0 is on the grid, a range of width 0 has s = 1.

The gradient of rounding is 0. The gradients below replace it. g is the output's
gradient, and "inside" are values for which round(x / s) + z needs no clipping (so they
may be half a step beyond the range's ends):

    "identity"  dx = g                  dlow = dhigh = 0
    "clipped"   dx = g inside, else 0   dlow = dhigh = 0
    "learned"   dx = g inside, else 0, and with sums over all the values of a range
                P = sum of g * (q - z - [inside] x / s),    O = sum of g outside:
                  asymmetric:  dhigh = (P - low / s * O) / qmax
                               dlow  = (high / s * O - P) / qmax
                  symmetric:   dhigh = P / qmax if high is the larger end, else 0
                               dlow  = -P / qmax if low is, equal ends get half each

"identity" is GDFQ's published code. "learned" is LSQ's gradient (Esser et al., ICLR
2020, arXiv 1902.08153, eq. 3) with the range's ends instead of the scale; both
roundings count as the identity. An x inside adds g (round(x / s) - x / s) / qmax to
dhigh and subtracts it from dlow. An x above adds g to dhigh, and an x below adds g to
dlow, except for the rounding error of the zero point over qmax. Ends that moved to
include 0 (low > 0, high < 0) and ranges of width 0 get gradient 0. low = 0 gets its
gradient: to keep a ReLU's range at 0, stop the gradient of low.

Computes in float32 for any dtype of x; dx has the dtype of x.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from acq.kernels.grid import (
    TINY,
    Grid,
    against,
    dequantize,
    quantize,
    scale_and_zero_point,
    step_of,
    widened,
)

Gradient = Literal["identity", "clipped", "learned"]

# Rows that are added before their sum over values: the largest of these that divides
# the number of values. Only for many values, because it takes long to compile.
_ROWS = (16, 8, 4, 2, 1)
_MANY = 1 << 16


def fake_quant(
    x: Float[Array, "*shape"],
    low: Float[Array, "..."],
    high: Float[Array, "..."],
    *,
    grid: Grid,
    gradient: Gradient,
) -> Float[Array, "*shape"]:
    """Returns `x` rounded to the grid of [low, high], in the dtype of `x`.

    It is computed in float32 and, for a float32 x, equals `dequantize(quantize(x))` bit
    for bit.

    Args:
      x: Values.
      low: Lower end of the range: one for all of `x`, shape (), or one for every
        channel of its last axis, (c,) or (1, ..., 1, c). float32.
      high: Upper end, as `low`.
      grid: Static; the integers.
      gradient: Static; "identity", "clipped" or "learned", see above.

    Raises:
      ValueError: Another gradient, or low and high with different shapes or a shape
        that fits neither form.
    """
    if gradient not in _KINDS:
        raise ValueError(
            f"gradient must be one of {', '.join(_KINDS)}, got {gradient!r}"
        )
    if low.shape != high.shape:
        raise ValueError(f"low and high differ in shape: {low.shape} and {high.shape}")
    return _KINDS[gradient](x, low, high, grid)


def _fake_quant(x: Array, low: Array, high: Array, grid: Grid) -> Array:
    scale, zero_point = scale_and_zero_point(low, high, grid)
    codes = quantize(x, scale, zero_point, grid)
    return dequantize(codes, scale, zero_point).astype(x.dtype)


def _fake_quant_fwd(x, low, high, grid):
    return _fake_quant(x, low, high, grid), (x, low, high)


def _identity_fwd(x, low, high, grid):
    return _fake_quant(x, low, high, grid), (low, high)


def _identity_bwd(grid, saved, g):
    low, high = saved
    return g, jnp.zeros_like(low), jnp.zeros_like(high)


def _clipped_bwd(grid, saved, g):
    x, low, high = saved
    inside = _inside(x, *scale_and_zero_point(low, high, grid), grid)
    return jnp.where(inside, g, 0), jnp.zeros_like(low), jnp.zeros_like(high)


def _learned_bwd(grid, saved, g):
    x, low, high = saved
    scale, zero_point = scale_and_zero_point(low, high, grid)
    dx = jnp.where(_inside(x, scale, zero_point, grid), g, 0)
    slopes, outside = lax.platform_dependent(
        x,
        g,
        scale,
        zero_point,
        cpu=functools.partial(folded_sums, grid=grid),
        default=functools.partial(plain_sums, grid=grid),
    )
    return dx, *_range_gradient(slopes, outside, low, high, grid)


def _make(forward, backward):
    quantizer = jax.custom_vjp(_fake_quant, nondiff_argnums=(3,))
    quantizer.defvjp(forward, backward)
    return quantizer


_KINDS = {
    "identity": _make(_identity_fwd, _identity_bwd),
    "clipped": _make(_fake_quant_fwd, _clipped_bwd),
    "learned": _make(_fake_quant_fwd, _learned_bwd),
}


def plain_sums(
    x: Array, g: Array, scale: Array, zero_point: Array, grid: Grid
) -> tuple[Array, Array]:
    """Returns P and O for every scale, in its shape: the form for accelerators."""
    axes = tuple(range(x.ndim - (scale.ndim > 0)))
    terms = _terms(x, g, against(x, scale), against(x, zero_point), grid)
    slopes, outside = (jnp.sum(term, axes).reshape(scale.shape) for term in terms)
    return slopes, outside


def folded_sums(
    x: Array, g: Array, scale: Array, zero_point: Array, grid: Grid
) -> tuple[Array, Array]:
    """Returns the same sums from one pass over memory: the form for CPU.

    XLA (jax 0.10) makes one loop for each sum, and vectorises none. Here P and O are
    one complex number, and rows of values are added first. That is a single loop,
    vectorised and on all cores, and leaves a sixteenth of the values to sum.
    """
    channels = scale.size
    count = x.size // channels
    rows = max(n for n in _ROWS if count % n == 0) if x.size >= _MANY else 1
    x, g = (a.reshape(rows, count // rows, channels) for a in (x, g))
    scale_row, zero_row = (a.reshape(1, channels) for a in (scale, zero_point))
    pairs = [
        lax.complex(*_terms(x[i], g[i], scale_row, zero_row, grid)) for i in range(rows)
    ]
    total = jnp.sum(functools.reduce(jnp.add, pairs), axis=0).reshape(scale.shape)
    return jnp.real(total), jnp.imag(total)


def _terms(x, g, scale, zero_point, grid):
    """Returns the terms of P and of O."""
    g = g.astype(jnp.float32)
    steps, lowest, highest = _steps(x, scale, zero_point, grid)
    code = jnp.round(steps)
    below, above = code < lowest, code > highest
    error = jnp.where(above, highest, jnp.where(below, lowest, code - steps))
    return g * error, jnp.where(below | above, g, 0)


def _range_gradient(slopes, outside, low, high, grid):
    """Returns the gradients of low and high in "learned", from P and O."""
    step = step_of(low, high, grid)
    wide_low, wide_high = widened(low, high)
    if grid.symmetric:
        larger = jnp.sign(wide_high + wide_low)  # 1: the upper, -1: the lower.
        dhigh = (1 + larger) / 2 * slopes / grid.qmax
        dlow = (larger - 1) / 2 * slopes / grid.qmax
    else:
        dhigh = (slopes - wide_low / step * outside) / grid.qmax
        dlow = (wide_high / step * outside - slopes) / grid.qmax
    fixed = step < TINY
    dlow = jnp.where(fixed | (low > 0), 0, dlow)
    dhigh = jnp.where(fixed | (high < 0), 0, dhigh)
    return dlow.astype(low.dtype), dhigh.astype(high.dtype)


def _inside(x, scale, zero_point, grid):
    """Returns where the codes need no clipping."""
    steps, lowest, highest = _steps(x, scale, zero_point, grid)
    code = jnp.round(steps)
    return (code >= lowest) & (code <= highest)


def _steps(x, scale, zero_point, grid):
    """Returns x / s, and the lowest and highest integer values of it on the grid."""
    scale, zero_point = against(x, scale), against(x, zero_point)
    steps = x.astype(jnp.float32) * (1 / scale)
    return steps, grid.qmin - zero_point, grid.qmax - zero_point
