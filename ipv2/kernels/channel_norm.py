"""Layer normalisation over the channels of every pixel.

    y = (x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias

with mean and (biased) variance over the last axis: LayerNorm2d of NAFNet, LayerNorm
"WithBias" of Restormer. Statistics and the division are in float32; the result has the
dtype of x. A pixel whose channels are all equal gives the bias.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def channel_norm(
    x: Float[Array, "n h w c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    epsilon: float,
) -> Float[Array, "n h w c"]:
    """`x` with mean `bias` and standard deviation about `scale` over its channels.

    Args:
      x: Features, channels last.
      scale: Multiplies what has variance one.
      bias: Added at the end.
      epsilon: Added to the variance; above 0.
    """
    features = x.astype(jnp.float32)
    centred = features - jnp.mean(features, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    unit = centred * lax.rsqrt(variance + epsilon)
    y = unit * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)
    return y.astype(x.dtype)
