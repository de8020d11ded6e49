"""The array operations of a classifier's layers, without their parameters.

Float, fake-quantized and integer layers all use these functions, so they differ only in
the values that go in.
"""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from common.convolution import convolve
from common.depthwise import depthwise_convolve

ActivationKind = Literal["relu", "relu6", "identity"]


def convolution(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k j o"],
    strides: int,
    padding: int,
    groups: int,
) -> Float[Array, "n h2 w2 o"]:
    """Returns the convolution of `x` with `kernel`, in a form fast for its shape."""
    if kernel.shape[0] == 1 and padding == 0:
        # Only these pixels count. Without strides this is a matrix product.
        x, strides = x[:, ::strides, ::strides], 1
    size, channels = kernel.shape[0], x.shape[-1]
    if strides == 1 and groups == 1 and padding < size:
        return convolve(x, kernel, padding)
    plain = functools.partial(
        lax.conv_general_dilated,
        window_strides=(strides, strides),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    if groups == channels == kernel.shape[3] and 2 * padding + 1 == size:
        return lax.platform_dependent(
            x,
            kernel,
            cpu=functools.partial(_depthwise, strides=strides),
            default=plain,
        )
    return plain(x, kernel)


def _depthwise(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """Convolves without XLA's form for CPU (jax 0.10), which is ten times as slow."""
    return depthwise_convolve(x, kernel[:, :, 0])[:, ::strides, ::strides]


def add_bias(y: Float[Array, "*n c"], bias: Float[Array, "c"] | None) -> jax.Array:
    """Returns `y` plus a bias per channel, or `y` if the bias is None."""
    return y if bias is None else y + _per_channel(bias, y)


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
    return mean, mean_of(jnp.square(x - _per_channel(mean, x)))


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
    return (x - _per_channel(mean, x)) * _per_channel(factor, x) + _per_channel(bias, x)


def _per_channel(values: jax.Array, x: jax.Array) -> jax.Array:
    return values.reshape((1,) * (x.ndim - 1) + (-1,))
