"""3x3 convolutions that halve or double an image, as stride-1 2x2 convolutions.

    halved[r, c]  = sum_{i, j} x[2 r + i, 2 c + j] kernel[i, j],  0 <= i, j < 3
    doubled[r, c] = sum_{i, j} x[(r + i - 1) // 2, (c + j - 1) // 2] kernel[i, j]

where x is zero outside the image. The first is a stride-2 convolution padded by (0, 1),
the second a 3x3 SAME convolution of the image enlarged by nearest neighbours. Channels
are summed as in `convolution.convolve`.

Neither is computed as written, because XLA on CPU is slow at strided convolutions and
their gradients. For halving, every 2x2 square of pixels becomes one pixel with four
times the channels, and the kernel, with a row and a column of zeros, becomes a 2x2
kernel over these. Doubling makes no enlarged image. Each pixel of the doubled image
depends on 2x2 pixels of the small image, with weights that depend on its position in
the square. So the four outputs of a small pixel need 16 products instead of 36.
`jax.grad` gives the gradients; both forms are linear.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.convolution import convolve


def convolve_halved(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n h2 w2 o"]:
    """Returns every second value of a 3x3 convolution, of size h / 2 x w / 2.

    Raises:
      ValueError: The height or width is odd.
    """
    h, w, channels = x.shape[1:]
    if h % 2 or w % 2:
        raise ValueError(f"halving needs an even height and width, got {h}x{w}")
    squares = _gather_squares(jnp.pad(x, ((0, 0), (0, 2), (0, 2), (0, 0))))
    wide = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    wide = wide.reshape(2, 2, 2, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    return convolve(squares, wide.reshape(2, 2, 4 * channels, -1), 0)


def convolve_doubled(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n h2 w2 o"]:
    """Returns a 3x3 SAME convolution of the image doubled by nearest neighbours."""
    n, h, w, channels = x.shape
    # Even outputs use the first weight for the small pixel before theirs, and the other
    # two for theirs. Odd outputs use the first two for theirs, the last for the next.
    folded = _fold(jnp.moveaxis(_fold(kernel), 2, 0))
    column_place, column_tap, row_place, row_tap, i, o = range(6)
    weights = folded.transpose(row_tap, column_tap, i, row_place, column_place, o)
    y = convolve(x, weights.reshape(2, 2, channels, -1), 1)
    y = y.reshape(n, h + 1, w + 1, 2, 2, -1)
    # An even output is at the window that ends with its pixel, an odd one at the window
    # that starts with it.
    rows = jnp.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], axis=2)
    both = jnp.stack([rows[:, :, :, :-1, 0], rows[:, :, :, 1:, 1]], axis=4)
    return both.reshape(n, 2 * h, 2 * w, -1)


def _gather_squares(x: Array) -> Array:
    """(n, h, w, c) -> (n, h / 2, w / 2, 4 c), pixels of a square in reading order."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


def _fold(kernel: Array) -> Array:
    """(3, ...) -> (2 positions, 2 taps, ...): the kernel over repeated pixels."""
    first, middle, last = kernel
    return jnp.stack(
        [jnp.stack([first, middle + last]), jnp.stack([first + middle, last])]
    )
