"""The array operations of a classifier's layers, without their parameters.

Float, fake-quantized and integer layers all use these functions, so they differ only in
the values that go in.
"""

import functools
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from common.convolution import convolve
from common.depthwise import depthwise_convolve

ActivationKind = Literal["relu", "relu6", "identity"]

Padding: TypeAlias = int | tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns of zeros: on every side, or ((top, bottom), (left, right))."""


def convolution(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k j o"],
    strides: int,
    padding: Padding,
    groups: int,
) -> Float[Array, "n h2 w2 o"]:
    """Returns the convolution of `x` with `kernel`, in a form fast for its shape."""
    if kernel.shape[0] == 1 and padding == 0:
        # Only these pixels count. Without strides this is a matrix product.
        x, strides = x[:, ::strides, ::strides], 1
    size, channels = kernel.shape[0], x.shape[-1]
    if isinstance(padding, int) and strides == 1 and groups == 1 and padding < size:
        return convolve(x, kernel, padding)
    sides = padded_sides(padding)
    plain = functools.partial(
        lax.conv_general_dilated,
        window_strides=(strides, strides),
        padding=sides,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    is_depthwise = groups == channels == kernel.shape[3] and size % 2 == 1
    if is_depthwise and max(map(max, sides)) <= size // 2:
        return lax.platform_dependent(
            x,
            kernel,
            cpu=functools.partial(_depthwise, strides=strides, sides=sides),
            default=plain,
        )
    return plain(x, kernel)


def same_padding(image: tuple[int, ...], kernel_size: int, strides: int) -> Padding:
    """Returns TensorFlow's "SAME" padding; the output has ceil(side / strides) pixels.

    It depends on the image, and with strides the bottom and the right may get a zero
    more than the top and the left. If all sides are equal, they are one number.

    Args:
      image: Height and width of the input.
      kernel_size: Side of the kernel.
      strides: Step in both directions.
    """
    totals = (max(0, kernel_size - 1 - (side - 1) % strides) for side in image)
    rows, columns = ((total // 2, total - total // 2) for total in totals)
    return rows[0] if len({*rows, *columns}) == 1 else (rows, columns)


def padded_sides(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns ((top, bottom), (left, right)) of any padding."""
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    return padding


def _depthwise(
    x: jax.Array,
    kernel: jax.Array,
    strides: int,
    sides: tuple[tuple[int, int], tuple[int, int]],
) -> jax.Array:
    """Convolves without XLA's form for CPU (jax 0.10), which is ten times as slow."""
    y = depthwise_convolve(x, kernel[:, :, 0])
    # Position i of y is the window that begins `margin` before i.
    margin = kernel.shape[0] // 2
    rows, columns = (
        slice(margin - before, size - margin + after, strides)
        for size, (before, after) in zip(y.shape[1:3], sides, strict=True)
    )
    return y[:, rows, columns]


def add_bias(y: Float[Array, "*n c"], bias: Float[Array, "c"] | None) -> jax.Array:
    """Returns `y` plus a bias per channel, or `y` if the bias is None."""
    return y if bias is None else y + per_channel(bias, y)


def activate(x: Float[Array, "*n c"], kind: ActivationKind) -> jax.Array:
    """Returns the activation of `x`. Its gradient is 0 at the kinks, as in PyTorch."""
    match kind:
        case "relu":
            return nn.relu(x)
        case "relu6":
            bounded = lax.stop_gradient(jnp.clip(x, 0, 6))
            return jnp.where((x > 0) & (x < 6), x, bounded)
        case "identity":
            return x
    raise ValueError(f"activations are 'relu', 'relu6' and 'identity', got {kind!r}")


def batch_statistics(
    x: Float[Array, "*n c"], axis_name: str | None
) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    """Returns mean and biased variance of each channel, float32.

    The variance is E[(x - mean)^2], in two passes, because E[x^2] - mean^2 loses its
    digits if the mean is large. Over a pmapped axis both are of the joined batch.
    """
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.float32)

    def mean_of(values: jax.Array) -> jax.Array:
        mean = jnp.mean(values, axes)
        return mean if axis_name is None else lax.pmean(mean, axis_name)

    mean = mean_of(x)
    return mean, mean_of(jnp.square(x - per_channel(mean, x)))


def normalise(
    x: Float[Array, "*n c"],
    mean: Float[Array, "c"],
    var: Float[Array, "c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    epsilon: float,
) -> jax.Array:
    """Returns (x - mean) / sqrt(var + epsilon) * scale + bias."""
    factor = scale * lax.rsqrt(var + epsilon)
    return (x - per_channel(mean, x)) * per_channel(factor, x) + per_channel(bias, x)


def per_channel(values: jax.Array, x: jax.Array) -> jax.Array:
    """Returns values of the channels, (c,), with the rank of `x`."""
    return values.reshape((1,) * (x.ndim - 1) + (-1,))
