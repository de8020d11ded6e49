"""Stride-1 2-D convolution whose gradients are as fast as its forward pass.

    y[n, r, c, o] = sum_{i, j, k} x[n, r + i - p, c + j - p, k] * kernel[i, j, k, o]

where x is zero outside the image (a convolution in the sense of deep learning).
`padding` p = 0 is VALID, (K - 1) / 2 is SAME, and K - 1 is full: the output grows by
K - 1, as in a stride-1 transposed convolution with the kernel flipped.

Gradients, for the output's gradient g:

    dx      = the same convolution of g with the kernel flipped in both directions and
              its channels swapped, padded by K - 1 - p
    dkernel[i, j] = sum over n, r, c of x[n, r + i - p, c + j - p]^T g[n, r, c]

Why not `jax.grad` of `lax.conv_general_dilated`: on CPU, XLA (jax 0.10) runs a
convolution without padding three times slower than the same one with a single padded
row (a 96 -> 96 channel 5x5 at 44 against 130 GFLOP/s on two cores). The kernel's
gradient is a convolution with a window as large as the image. It is four times slower
than matrix products over blocks of rows that stay in the cache. So on CPU the forward
pass and dx get one spare row, which is cut off again, and dkernel is such a sum of
products. Other platforms use the plain lax forms (`lax.platform_dependent` decides when
compiling). A 1x1 kernel's convolution is a matrix product.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_NHWC = ("NHWC", "HWIO", "NHWC")
# Floats in one block of shifted rows: 2 MB, which fit a core's second-level cache and
# its share of the third. Times with 0.5 to 4 MB differ by less than 10 %.
_BLOCK_FLOATS = 1 << 19
# With fewer channels the products are too thin and XLA's form is faster: by a third at
# 16 channels; at 32 both are equal. A 1x1 kernel's products need no shifts: they take a
# half to a tenth of the time of XLA's form, which transposes both factors.
_MIN_CHANNELS = 32


def convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"], padding: int
) -> Float[Array, "n h2 w2 o"]:
    """Returns the convolution of `x`, zero-padded by `padding`, with `kernel`.

    Args:
      x: Images or features, channels last.
      kernel: Square kernel of odd or even size, same dtype as `x`.
      padding: Static, 0 <= padding < k.

    Returns:
      Sum of products in the dtype of `x`, of size h + 2 * padding - k + 1. The kernel's
      gradient is accumulated in float32 and returned in the kernel's dtype.

    Raises:
      ValueError: Channels differ, the kernel is not square, the padding is out of
        range, or the image is smaller than the kernel.
      TypeError: Dtypes differ.
    """
    size = kernel.shape[0]
    if kernel.shape[1] != size:
        raise ValueError(f"the kernel must be square, got {kernel.shape[:2]}")
    if x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            f"x has {x.shape[-1]} channels but the kernel takes {kernel.shape[2]}"
        )
    if not 0 <= padding < size:
        raise ValueError(f"padding must be in [0, {size}), got {padding}")
    if min(x.shape[1:3]) + 2 * padding < size:
        raise ValueError(
            f"an image of {x.shape[1]}x{x.shape[2]} padded by {padding} is smaller "
            f"than the {size}x{size} kernel"
        )
    if x.dtype != kernel.dtype:
        raise TypeError(
            f"x and kernel must share a dtype, got {x.dtype} and {kernel.dtype}"
        )
    return _convolve(x, kernel, padding)


def plain_convolution(x: Array, kernel: Array, padding: int) -> Array:
    """Returns lax's convolution: the form for accelerators, and the oracle."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(padding, padding)] * 2, dimension_numbers=_NHWC
    )


def padded_convolution(x: Array, kernel: Array, padding: int) -> Array:
    """Returns the same values, never without padding: the form for CPU."""
    if kernel.shape[0] == 1:
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    if padding:
        return plain_convolution(x, kernel, padding)
    spare_row = [(0, 1), (0, 0)]
    return lax.conv_general_dilated(
        x, kernel, (1, 1), spare_row, dimension_numbers=_NHWC
    )[:, :-1]


def plain_kernel_gradient(x: Array, g: Array, size: int, padding: int) -> Array:
    """Returns lax's gradient of the kernel: the form for accelerators."""
    shape = jax.ShapeDtypeStruct((size, size, x.shape[-1], g.shape[-1]), x.dtype)
    transpose = jax.linear_transpose(
        lambda kernel: plain_convolution(x, kernel, padding), shape
    )
    return transpose(g)[0]


def blocked_kernel_gradient(x: Array, g: Array, size: int, padding: int) -> Array:
    """Returns the same gradient, by products over blocks of rows: the form for CPU.

    A block holds `rows` output rows of one image. Its `size` column shifts lie side by
    side, (rows + size - 1, w, size * i). Each kernel row is then one product with g's
    rows. Blocks run one after the other, so that each stays in the cache. Rows missing
    from the last block are zeros in g and add nothing.
    """
    n, h, w, out_channels = g.shape
    in_channels = x.shape[-1]
    rows = max(1, min(h, _BLOCK_FLOATS // (w * size * in_channels)))
    blocks = -(-h // rows)
    rows = -(-h // blocks)
    spare = blocks * rows - h
    x = jnp.pad(x, ((0, 0), (padding, padding + spare), (padding, padding), (0, 0)))
    g = jnp.pad(g, ((0, 0), (0, spare), (0, 0), (0, 0)))

    def add_block(total, block):
        image, top = block // blocks, block % blocks * rows
        x_rows = lax.dynamic_slice(
            x, (image, top, 0, 0), (1, rows + size - 1, *x.shape[2:])
        )[0]
        g_rows = lax.dynamic_slice(g, (image, top, 0, 0), (1, rows, w, out_channels))
        shifts = [x_rows[:, j : j + w] for j in range(size)]
        columns = jnp.concatenate(shifts, axis=-1)
        products = [
            lax.dot_general(
                columns[i : i + rows].reshape(rows * w, -1),
                g_rows.reshape(rows * w, out_channels),
                (((0,), (0,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
            for i in range(size)
        ]
        return total + jnp.stack(products), None

    zero = jnp.zeros((size, size * in_channels, out_channels), jnp.float32)
    total, _ = lax.scan(add_block, zero, jnp.arange(n * blocks))
    return total.reshape(size, size, in_channels, out_channels).astype(x.dtype)


def fast_kernel_gradient(x: Array, g: Array, size: int, padding: int) -> Array:
    """Returns the gradient in the form that is faster on CPU for these channels."""
    thin = size > 1 and min(x.shape[-1], g.shape[-1]) < _MIN_CHANNELS
    form = plain_kernel_gradient if thin else blocked_kernel_gradient
    return form(x, g, size, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, padding: int) -> Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(padded_convolution, padding=padding),
        default=functools.partial(plain_convolution, padding=padding),
    )


def _convolve_fwd(x, kernel, padding):
    return _convolve(x, kernel, padding), (x, kernel)


def _convolve_bwd(padding, saved, g):
    x, kernel = saved
    size = kernel.shape[0]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    dx = _convolve(g, flipped, size - 1 - padding)
    dkernel = lax.platform_dependent(
        x,
        g,
        cpu=functools.partial(fast_kernel_gradient, size=size, padding=padding),
        default=functools.partial(plain_kernel_gradient, size=size, padding=padding),
    )
    return dx, dkernel


_convolve.defvjp(_convolve_fwd, _convolve_bwd)
