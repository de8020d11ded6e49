"""The attention map of a network, and the centre of that map.

The map is the share of each position in the energy of the features. The centre is the
mean position, weighted by a power of the map. The centroid of every broad map is near
the image's middle; the power pulls it to the map's peak:

    A[i, j] = sum_c F[i, j, c]^2 / S,            S = sum over i, j, c of F^2
    B[i, j] = A[i, j]^p / sum(A^p)
    center  = sum over i, j of B[i, j] * (x_j, y_i)

Positions: pixel j of w is at x_j = (2 j + 1) / w - 1. So the image spans [-1, 1], and
the centre of a uniform map is 0. x is the column, y the row, downwards.

Gradients, for the output's gradient g, a (n, h, w) array or a pair (g_x, g_y):

    dF[i, j, c] = 2 F[i, j, c] / S * (g[i, j] - sum(g * A))
    dA[i, j]    = p A[i, j]^(p-1) / sum(A^p) * (g_x (x_j - center_x)
                                                + g_y (y_i - center_y))

Features or maps whose sum is 0 count as uniform, with gradient 0, where plain JAX gives
NaN. The same applies if S is below the smallest normal float32, 1.2e-38, because it may
be flushed to 0. Infinities and NaN give NaN. Sums are in float32.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_TINY = jnp.finfo(jnp.float32).tiny


def attention_map(features: Float[Array, "n h w c"]) -> Float[Array, "n h w"]:
    """Returns the share of every position in the features' energy; each map sums to 1.

    Args:
      features: Of any sign, channels last, with h w c > 0.

    Returns:
      float32; the gradient has the features' dtype.

    Raises:
      ValueError: There is no position or no channel.
    """
    if 0 in features.shape[1:]:
        raise ValueError(
            f"a map needs positions and channels, got features of {features.shape}"
        )
    return _attention_map(features)


def attention_center(
    attention: Float[Array, "n h w"], power: float
) -> Float[Array, "n 2"]:
    """Returns the centre (x, y) in [-1, 1]^2 of every map to the given power.

    Args:
      attention: Maps, not negative; only the ratio of their values matters.
      power: Static, at least 1: 1 gives the centroid, 2 already follows the peak.

    Raises:
      ValueError: The power is below 1 (its gradient is infinite where a map is 0), or
        there is no position.
    """
    if not 1 <= power < float("inf"):
        raise ValueError(f"the power must be a number of at least 1, got {power}")
    if 0 in attention.shape[1:]:
        raise ValueError(f"a centre needs positions, got maps of {attention.shape}")
    return _attention_center(attention, float(power))


@jax.custom_vjp
def _attention_map(features: Array) -> Array:
    return _attention_map_fwd(features)[0]


def _attention_map_fwd(features):
    energy = jnp.sum(jnp.square(features.astype(jnp.float32)), axis=-1)
    total = _total(energy)
    attention = _shares(energy, total)
    return attention, (features, attention, total)


def _attention_map_bwd(saved, g):
    features, attention, total = saved
    slope = _divide(2 * (g - _total(g * attention)), total)
    gradient = features.astype(jnp.float32) * slope[..., None]
    return (gradient.astype(features.dtype),)


_attention_map.defvjp(_attention_map_fwd, _attention_map_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _attention_center(attention: Array, power: float) -> Array:
    return _attention_center_fwd(attention, power)[0]


def _attention_center_fwd(attention, power):
    # Relative to the maximum, so that high powers neither underflow nor overflow.
    attention = attention.astype(jnp.float32)
    peak = jnp.max(attention, axis=(1, 2), keepdims=True)
    relative = _divide(attention, peak, otherwise=1.0)
    sharp = relative**power
    total = _total(sharp)
    weight = sharp / total
    x, y = _positions(attention.shape)
    center = jnp.stack([jnp.sum(weight * at, axis=(1, 2)) for at in (x, y)], axis=-1)
    return center, (relative, _divide(power / total, peak), center)


def _attention_center_bwd(power, saved, g):
    relative, factor, center = saved
    x, y = _positions(relative.shape)
    pull = sum(
        g[:, k, None, None] * (at - center[:, k, None, None])
        for k, at in enumerate((x, y))
    )
    return (factor * relative ** (power - 1) * pull,)


_attention_center.defvjp(_attention_center_fwd, _attention_center_bwd)


def _total(values: Array) -> Array:
    return jnp.sum(values, axis=(1, 2), keepdims=True)


def _shares(energy: Array, total: Array) -> Array:
    return _divide(energy, total, otherwise=1 / (energy.shape[1] * energy.shape[2]))


def _divide(values: Array, total: Array, otherwise: float = 0.0) -> Array:
    """Returns the quotient, or `otherwise` where the total counts as 0."""
    zero = total < _TINY
    return jnp.where(zero, otherwise, values / jnp.where(zero, 1.0, total))


def _positions(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns x of the columns, (1, 1, w), and y of the rows, (1, h, 1)."""
    y, x = ((2 * jnp.arange(n) + 1) / n - 1 for n in shape[1:])
    return x.reshape(1, 1, -1), y.reshape(1, -1, 1)
