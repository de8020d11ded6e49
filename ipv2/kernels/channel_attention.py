"""Attention between channels: Restormer's MDTA without its convolutions.

For each head, of d channels, with q, k, v as (pixels, d) matrices:

    a = softmax(temperature * unit(q)^T unit(k))     (d, d), softmax over k's channels
    y = v a^T                                        (pixels, d)

`unit` divides each channel by its norm over all pixels (at least 1e-12, so a channel of
zeros stays zero). Norms, logits and softmax are in float32. Memory grows with the
number of pixels, not with its square.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LEAST_NORM = 1e-12


def channel_attention(
    query: Float[Array, "n h w c"],
    key: Float[Array, "n h w c"],
    value: Float[Array, "n h w c"],
    temperature: Float[Array, "heads"],
) -> Float[Array, "n h w c"]:
    """Mixes the values over the channels of each head, (n, h, w, c).

    Args:
      query: Query channels; those of a head are consecutive.
      key: Key channels.
      value: Channels to mix, in the dtype of `query` and `key`.
      temperature: Factor of the logits, one per head.

    Raises:
      ValueError: The channels are no multiple of the heads.
    """
    n, h, w, channels = query.shape
    heads = temperature.shape[0]
    if channels % heads:
        raise ValueError(f"{channels} channels do not divide into {heads} heads")

    def by_head(x: Array) -> Array:
        return x.reshape(n, h * w, heads, channels // heads)

    logits = jnp.einsum(
        "npad,npae->nade",
        by_head(query),
        by_head(key),
        preferred_element_type=jnp.float32,
    )
    # Dividing the small map by the norms is cheaper than dividing the pixels.
    norms = _inverse_norm(query).reshape(n, heads, -1, 1)
    logits = logits * norms * _inverse_norm(key).reshape(n, heads, 1, -1)
    weight = jax.nn.softmax(logits * temperature.reshape(1, heads, 1, 1), axis=-1)
    y = jnp.einsum("nade,npae->npad", weight.astype(value.dtype), by_head(value))
    return y.reshape(n, h, w, channels)


def _inverse_norm(x: Array) -> Array:
    """Returns 1 / max(norm over pixels, 1e-12), (n, c), with a finite gradient."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=(1, 2))
    return jax.lax.rsqrt(jnp.maximum(squares, _LEAST_NORM**2))
