"""Layer normalisation over the channels of every pixel.

    y = u * scale + bias,   u = (x - mean(x)) * r,   r = 1 / sqrt(var(x) + epsilon)

with mean and (biased) variance over the last axis: LayerNorm2d of NAFNet, LayerNorm
"WithBias" of Restormer. A pixel whose channels are all equal gives the bias.

Gradients, for the output's gradient g and s = g * scale:

    dx     = r * (s - mean(s) - u * mean(s * u))
    dscale = sum of g * u over all pixels
    dbias  = sum of g over all pixels

They are written out because XLA turns the automatic gradient into one loop, which takes
three times as long on CPU. Statistics and sums are in float32; results have the dtypes
of their arguments. Static: epsilon.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def channel_norm(
    x: Float[Array, "n h w c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    epsilon: float,
) -> Float[Array, "n h w c"]:
    """Returns `x` with mean `bias` and deviation `scale` over its channels.

    Args:
      x: Features, channels last.
      scale: Factor of the normalised features.
      bias: Added at the end.
      epsilon: Added to the variance; above 0.
    """
    return _norm(x, scale, bias, epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    return _norm_fwd(x, scale, bias, epsilon)[0]


def _norm_fwd(x, scale, bias, epsilon):
    features = x.astype(jnp.float32)
    mean = jnp.mean(features, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(features - mean), axis=-1, keepdims=True)
    inverse = lax.rsqrt(variance + epsilon)
    y = (features - mean) * inverse * _per_channel(scale) + _per_channel(bias)
    return y.astype(x.dtype), (x, scale, bias, mean, inverse)


def _norm_bwd(epsilon, saved, g):
    x, scale, bias, mean, inverse = saved
    unit = (x.astype(jnp.float32) - mean) * inverse
    g = g.astype(jnp.float32)
    scaled = g * _per_channel(scale)
    along_mean = jnp.mean(scaled, axis=-1, keepdims=True)
    along_unit = jnp.mean(scaled * unit, axis=-1, keepdims=True)
    dx = (scaled - along_mean - unit * along_unit) * inverse
    dscale = jnp.sum(g * unit, axis=(0, 1, 2))
    dbias = jnp.sum(g, axis=(0, 1, 2))
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype)


def _per_channel(values: Array) -> Array:
    return values.astype(jnp.float32).reshape(1, 1, 1, -1)


_norm.defvjp(_norm_fwd, _norm_bwd)
