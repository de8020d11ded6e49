"""Maximum over blocks of pixels: max pooling whose stride is its window.

    y[n, r, c, k] = max_{i, j < s} x[n, r*s + i, c*s + j, k]

Gradient: of the pixel that is the maximum; equal ones share it as `jnp.maximum` shares
it, in halves. (XLA's own pooling gradient is a scatter, slow on CPU.) Static: s.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float


def block_maximum(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n h2 w2 c"]:
    """(n, h, w, c) as the maxima of blocks, (n, h / size, w / size, c).

    Raises:
      ValueError: If a side is no multiple of size, or size is below 1.
    """
    n, h, w, c = x.shape
    if size < 1 or h % size or w % size:
        raise ValueError(f"an image of {h}x{w} does not divide into {size}x{size}")
    blocks = x.reshape(n, h // size, size, w // size, size, c)
    parts = [blocks[:, :, i, :, j] for i in range(size) for j in range(size)]
    return functools.reduce(jnp.maximum, parts)
