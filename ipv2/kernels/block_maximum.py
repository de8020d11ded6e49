"""Maximum over blocks of pixels: max pooling whose stride is its window.

    y[n, r, c, k] = max_{i, j < s} x[n, r*s + i, c*s + j, k]

The gradient goes to the pixel with the maximum; equal pixels share it in halves, as in
`jnp.maximum`. (The gradient of XLA's pooling is a scatter, slow on CPU.) Static: s.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float


def block_maximum(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n h2 w2 c"]:
    """Returns the maxima of blocks, (n, h / size, w / size, c).

    Raises:
      ValueError: A side is no multiple of size, or size is below 1.
    """
    n, h, w, c = x.shape
    if size < 1 or h % size or w % size:
        raise ValueError(f"an image of {h}x{w} does not divide into {size}x{size}")
    blocks = x.reshape(n, h // size, size, w // size, size, c)
    parts = [blocks[:, :, i, :, j] for i in range(size) for j in range(size)]
    return functools.reduce(jnp.maximum, parts)
