"""Pooling with PyTorch's sizes and borders."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def max_pool(
    x: Float[Array, "n h w c"], size: int, strides: int, padding: int = 0
) -> Float[Array, "n h2 w2 c"]:
    """Returns the maximum of each window, h2 = (h + 2 padding - size) // strides + 1.

    The border is -inf, so it is never the maximum. The gradient goes to the first of
    equal values, in reading order.
    """
    border = (padding, padding)
    return lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype),
        lax.max,
        (1, size, size, 1),
        (1, strides, strides, 1),
        ((0, 0), border, border, (0, 0)),
    )


def adaptive_mean_pool(
    x: Float[Array, "n h w c"], size: int
) -> Float[Array, "n size size c"]:
    """Returns the means over `size` x `size` windows that cover the image.

    Row i of the result is the mean of rows floor(i h / size) to ceil((i + 1) h / size)
    - 1. Windows share rows if `size` does not divide h, and repeat rows if h is
    smaller. An image of that size does not change.
    """
    for axis in (1, 2):
        if x.shape[axis] != size:
            weights = jnp.asarray(_window_weights(x.shape[axis], size), x.dtype)
            # Exact products: accelerators would round them to bfloat16.
            y = jnp.tensordot(
                x, weights, axes=((axis,), (1,)), precision=lax.Precision.HIGHEST
            )
            x = jnp.moveaxis(y, -1, axis)
    return x


def global_mean_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Returns the mean of each channel."""
    return jnp.mean(x, axis=(1, 2))


def _window_weights(length: int, size: int) -> np.ndarray:
    weights = np.zeros((size, length), np.float32)
    for i in range(size):
        first, end = i * length // size, -(-(i + 1) * length // size)
        weights[i, first:end] = 1 / (end - first)
    return weights
