"""Convolutions whose stride is their kernel's size: blocks times a matrix.

    convolve_patches:  y[n, r, c, o] = sum_{i, j, k} x[n, r*s + i, c*s + j, k]
                                                     * kernel[i, j, k, o]
    transpose_patches: y[n, r*s + i, c*s + j, o] = sum_k x[n, r, c, k]
                                                         * kernel[i, j, k, o] + bias[o]

for an s x s kernel. With s = 2 the first halves an image, and the second, a transposed
convolution, doubles it. Blocks do not overlap, so both are one matrix product between
rearrangements of pixels. On CPU, XLA derives fast gradients from these, but not from a
strided convolution. Products are accumulated in float32.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.convolution import convolve


def convolve_patches(
    x: Float[Array, "n h w i"], kernel: Float[Array, "s s i o"]
) -> Float[Array, "n h2 w2 o"]:
    """Convolves blocks: (n, h, w, i) to (n, h / s, w / s, o).

    Args:
      x: Images or features, channels last, sides multiples of s.
      kernel: s x s kernel, same dtype as `x`.

    Raises:
      ValueError: The kernel is not square, or the sides are no multiples of its size.
      TypeError: The dtypes differ.
    """
    size = _size(kernel)
    n, h, w, channels = x.shape
    if h % size or w % size:
        raise ValueError(
            f"an image of {h}x{w} does not divide into blocks of {size}x{size}"
        )
    x = x.reshape(n, h // size, size, w // size, size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(n, h // size, w // size, size**2 * channels)
    return convolve(x, kernel.reshape(1, 1, -1, kernel.shape[3]), 0)


def transpose_patches(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "s s i o"],
    bias: Float[Array, "o"] | None = None,
) -> Float[Array, "n h2 w2 o"]:
    """Applies the transposed convolution: (n, h, w, i) to (n, h * s, w * s, o).

    The bias is added before pixels are rearranged. In an ONNX file it then follows the
    product at once, so that runtimes make one operation of both.

    Args:
      x: Images or features, channels last.
      kernel: s x s kernel, same dtype as `x`.
      bias: of each output channel.

    Raises:
      ValueError: The kernel is not square.
      TypeError: The dtypes differ.
    """
    size = _size(kernel)
    n, h, w, channels = x.shape
    columns = jnp.moveaxis(kernel, 2, 0).reshape(1, 1, channels, -1)
    y = convolve(x, columns, 0)
    if bias is not None:
        y = y + jnp.tile(bias, size**2).reshape(1, 1, 1, -1)
    y = y.reshape(n, h, w, size, size, kernel.shape[3])
    y = y.transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, h * size, w * size, kernel.shape[3])


def _size(kernel: Array) -> int:
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"the kernel must be square, got {kernel.shape[:2]}")
    return kernel.shape[0]
