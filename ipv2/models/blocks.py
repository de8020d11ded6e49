"""Parts that several denoisers share: network units, padding and layers.

Networks get `unit = HU / 1000`: water is 0, air is -1, cortical bone about 1 to 2. The
scale is linear without a window and loses nothing, so a network's output can be
converted to HU. `units` has another unit, that of the published FFM. No other code in
the project may scale HU for a network.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float

from common.convolution import convolve
from common.depthwise import depthwise_convolve
from ipv2.kernels.channel_norm import channel_norm
from ipv2.kernels.patch_convolution import convolve_patches, transpose_patches

HU_PER_UNIT = 1000.0

Padding = Literal["valid", "same", "full"]


def hu_to_unit(hu: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Converts HU to network units, HU / 1000: water 0, air -1."""
    return hu / HU_PER_UNIT


def unit_to_hu(unit: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Converts a network's output to HU, in float32."""
    return unit.astype(jnp.float32) * HU_PER_UNIT


def check_image(x: jax.Array, channels: int, name: str) -> None:
    """Raises ValueError unless `x` is NHWC with an odd number `channels` of slices."""
    if channels < 1 or channels % 2 == 0:
        raise ValueError(
            f"{name}'s channels are neighbouring slices with the denoised one in the "
            f"middle: their number must be odd, got {channels}"
        )
    if x.ndim != 4 or x.shape[-1] != channels or 0 in x.shape:
        raise ValueError(
            f"{name} takes images of shape (n, h, w, {channels}), got {x.shape}"
        )


def centre_slice(x: jax.Array) -> jax.Array:
    """Returns the slice in the middle of its neighbours, (n, h, w, 1), in float32."""
    middle = x.shape[-1] // 2
    return x[..., middle : middle + 1].astype(jnp.float32)


def pad_to_multiple(x: jax.Array, multiple: int) -> jax.Array:
    """Pads `x` with its last row and column to sides that are multiples."""
    below, right = (-side % multiple for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")


def pad_to_minimum(x: jax.Array, minimum: int) -> jax.Array:
    """Pads `x` with its last row and column to sides of at least `minimum`."""
    below, right = (max(0, minimum - side) for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")


def crop_like(y: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the top left part of `y` with the height and width of `x`."""
    return y[:, : x.shape[1], : x.shape[2]]


def near_zero_init() -> Initializer:
    """Returns LeCun's normal with a hundredth of the amplitude of He's rule.

    It is for the last layer of a residual network: an untrained network then nearly
    returns its input, and the first steps improve on it.
    """
    return initializers.variance_scaling(2e-4, "fan_in", "truncated_normal")


class _Layer(nn.Module, kw_only=True):
    """A layer that stores its parameters in one dtype and computes in another.

    Attributes:
      dtype: Dtype of the computation; None for that of input and parameters.
      param_dtype: Dtype of the parameters.
    """

    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32


class Conv(_Layer):
    """Stride-1 convolution; `flax.linen.Conv` with faster gradients on CPU.

    Parameters `kernel` (k, k, in, features) and `bias` (features,) have flax's names
    and layout, so weights can be exchanged.

    Attributes:
      features: Channels out.
      kernel_size: Side of the square kernel.
      padding: 'valid' (shrinks by k - 1), 'same' (odd kernels), or 'full' (grows by
        k - 1). 'full' is a stride-1 transposed convolution: the kernel of a PyTorch
        `ConvTranspose2d` weight w is `w.transpose(2, 3, 0, 1)[::-1, ::-1]`.
      kernel_init: He's normal by default, for the ReLU that follows.
      use_bias: Whether there is a bias.
    """

    features: int
    kernel_size: int
    padding: Padding = "same"
    kernel_init: Initializer = initializers.he_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of shape (n, h', w', features)."""
        size = self.kernel_size
        shape = (size, size, x.shape[-1], self.features)
        x, kernel, bias = _params(self, x, shape, self.kernel_init, self.use_bias)
        return _add_bias(convolve(x, kernel, _pixels(self.padding, size)), bias)


class DepthwiseConv(_Layer):
    """3x3 convolution of every channel with its own kernel, zero-padded.

    Parameters `kernel` (3, 3, 1, c) and `bias` (c,) as `flax.linen.Conv` with
    `feature_group_count=c` has them.

    Attributes:
      use_bias: Whether there is a bias.
    """

    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of the shape of `x`."""
        shape, init = (3, 3, 1, x.shape[-1]), initializers.lecun_normal()
        x, kernel, bias = _params(self, x, shape, init, self.use_bias)
        return _add_bias(depthwise_convolve(x, kernel[:, :, 0]), bias)


class HalvingConv(_Layer):
    """2x2 convolution of stride 2; parameters as `flax.linen.Conv` has them.

    Attributes:
      features: Channels out.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of shape (n, h / 2, w / 2, features); h and w must be even."""
        shape, init = (2, 2, x.shape[-1], self.features), initializers.lecun_normal()
        x, kernel, bias = _params(self, x, shape, init)
        return _add_bias(convolve_patches(x, kernel), bias)


class DoublingConv(_Layer):
    """2x2 transposed convolution of stride 2.

    The kernel of a PyTorch `ConvTranspose2d` weight w is `w.transpose(2, 3, 0, 1)`.

    Attributes:
      features: Channels out.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of shape (n, 2 * h, 2 * w, features)."""
        # One tap of the kernel reaches a pixel, so the fan-in is the channels.
        init = initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=2, out_axis=3, batch_axis=(0, 1)
        )
        x, kernel, bias = _params(self, x, (2, 2, x.shape[-1], self.features), init)
        return transpose_patches(x, kernel, bias)


def batch_norm(
    *,
    train: bool,
    axis_name: str | None,
    name: str,
    dtype: Dtype | None,
    param_dtype: Dtype,
) -> nn.BatchNorm:
    """Returns batch normalisation whose running statistics forget a tenth per step.

    Args:
      train: whether to normalise by the batch and update the running statistics.
      axis_name: axis of the devices that share a batch in training; None: each device
        uses its own statistics.
      name: of the layer.
      dtype: of its result; None for that of input and parameters.
      param_dtype: of its parameters.
    """
    return nn.BatchNorm(
        not train,
        momentum=0.9,
        epsilon=1e-4,
        axis_name=axis_name,
        name=name,
        dtype=dtype,
        param_dtype=param_dtype,
    )


class ChannelNorm(_Layer):
    """Layer normalisation over channels, with parameters `scale` and `bias` (c,).

    Attributes:
      epsilon: Added to the variance.
    """

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of the shape of `x`, in `dtype`."""
        init = initializers.ones_init()
        x, scale, bias = _params(self, x, x.shape[-1:], init, name="scale")
        return channel_norm(x, scale, bias, self.epsilon)


def _params(
    layer: _Layer,
    x: jax.Array,
    shape: tuple[int, ...],
    init: Initializer,
    use_bias: bool = True,
    *,
    name: str = "kernel",
) -> list[Any]:
    """Returns `x`, a layer's parameter and its bias (or None) in the layer's dtype.

    Biases start at 0; there is one per output channel, the shape's last axis.
    """
    kernel = layer.param(name, init, shape, layer.param_dtype)
    bias = None
    if use_bias:
        zeros = initializers.zeros_init()
        bias = layer.param("bias", zeros, shape[-1:], layer.param_dtype)
    return promote_dtype(x, kernel, bias, dtype=layer.dtype)


def _add_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def _pixels(padding: Any, size: int) -> int:
    match padding:
        case "valid":
            return 0
        case "full":
            return size - 1
        case "same" if size % 2:
            return size // 2
        case "same":
            raise ValueError(f"'same' padding needs an odd kernel, got {size}x{size}")
    raise ValueError(f"padding must be 'valid', 'same' or 'full', got {padding!r}")
