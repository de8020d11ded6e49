"""Depthwise 2-D convolution: every channel has its own kernel.

    y[n, r, c, k] = sum_{i, j} x[n, r + i - p, c + j - p, k] * kernel[i, j, k]

with p = (K - 1) / 2 and x zero outside the image, so that the size stays.

Gradients, for the output's gradient g:

    dx            = the same convolution of g with the kernel flipped in both directions
    dkernel[i, j] = sum over n, r, c of x[n, r + i - p, c + j - p] * g[n, r, c]

On CPU XLA (jax 0.10) has no fast form of a convolution with as many groups as channels.
So on CPU the convolution and the gradients are K^2 shifted products, which one loop
adds up. Other platforms use the plain lax forms (`lax.platform_dependent` decides when
compiling).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_NHWC = ("NHWC", "HWIO", "NHWC")


def depthwise_convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k c"]
) -> Float[Array, "n h w c"]:
    """Returns the convolution of each channel with its kernel, padded to the same size.

    Args:
      x: Images or features, channels last.
      kernel: Square kernels of odd size, one per channel, same dtype as `x`.

    Returns:
      Sum of products in the dtype of `x`. The kernel's gradient is accumulated in
      float32 and returned in the kernel's dtype.

    Raises:
      ValueError: Channels differ, or the kernels are not square with odd size.
      TypeError: Dtypes differ.
    """
    size = kernel.shape[0]
    if kernel.shape[1] != size or size % 2 == 0:
        raise ValueError(
            f"kernels must be square, of odd size, got {kernel.shape[0]}x"
            f"{kernel.shape[1]}"
        )
    if x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            f"x has {x.shape[-1]} channels but there are {kernel.shape[2]} kernels"
        )
    if x.dtype != kernel.dtype:
        raise TypeError(
            f"x and kernel must share a dtype, got {x.dtype} and {kernel.dtype}"
        )
    return _convolve(x, kernel)


def plain_depthwise(x: Array, kernel: Array) -> Array:
    """Returns lax's convolution: the form for accelerators, and the oracle."""
    margin = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (1, 1),
        [(margin, margin)] * 2,
        dimension_numbers=_NHWC,
        feature_group_count=x.shape[-1],
    )


def shifted_depthwise(x: Array, kernel: Array) -> Array:
    """Returns the same values as a sum of shifted products: the form for CPU."""
    size = kernel.shape[0]
    h, w = x.shape[1:3]
    x = _padded(x, size)
    terms = [
        x[:, i : i + h, j : j + w] * kernel[i, j].reshape(1, 1, 1, -1)
        for i in range(size)
        for j in range(size)
    ]
    return functools.reduce(jnp.add, terms)


def plain_kernel_gradient(x: Array, g: Array, size: int) -> Array:
    """Returns lax's gradient of the kernel: the form for accelerators."""
    shape = jax.ShapeDtypeStruct((size, size, x.shape[-1]), x.dtype)
    transpose = jax.linear_transpose(lambda k: plain_depthwise(x, k), shape)
    return transpose(g)[0]


def shifted_kernel_gradient(x: Array, g: Array, size: int) -> Array:
    """Returns the same gradient, by sums of shifted products: the form for CPU.

    Each step multiplies one row of g with `size` rows of x. The size^2 products stay
    (w, c) until the end, because adding rows is fast and adding along a row is not.
    """
    n, h, w, c = g.shape
    x = _padded(x, size)

    def add_row(total, row):
        image, top = row // h, row % h
        x_rows = lax.dynamic_slice(x, (image, top, 0, 0), (1, size, *x.shape[2:]))[0]
        g_row = lax.dynamic_slice(g, (image, top, 0, 0), (1, 1, w, c))[0, 0]
        x_rows, g_row = x_rows.astype(jnp.float32), g_row.astype(jnp.float32)
        shifts = [x_rows[i, j : j + w] for i in range(size) for j in range(size)]
        added = [t + shift * g_row for t, shift in zip(total, shifts, strict=True)]
        return added, None

    # Separate arrays: one of (size^2, w, c) would be copied for every row.
    zeros = [jnp.zeros((w, c), jnp.float32)] * size**2
    total, _ = lax.scan(add_row, zeros, jnp.arange(n * h))
    return jnp.stack(total).sum(1).reshape(size, size, c).astype(x.dtype)


def _padded(x: Array, size: int) -> Array:
    margin = (size // 2, size // 2)
    return jnp.pad(x, ((0, 0), margin, margin, (0, 0)))


@jax.custom_vjp
def _convolve(x: Array, kernel: Array) -> Array:
    return lax.platform_dependent(
        x, kernel, cpu=shifted_depthwise, default=plain_depthwise
    )


def _convolve_fwd(x, kernel):
    return _convolve(x, kernel), (x, kernel)


def _convolve_bwd(saved, g):
    x, kernel = saved
    size = kernel.shape[0]
    dx = _convolve(g, kernel[::-1, ::-1])
    dkernel = lax.platform_dependent(
        x,
        g,
        cpu=functools.partial(shifted_kernel_gradient, size=size),
        default=functools.partial(plain_kernel_gradient, size=size),
    )
    return dx, dkernel


_convolve.defvjp(_convolve_fwd, _convolve_bwd)
