"""NAFNet: restorer without activation functions (Chen et al., ECCV 2022).

A U-Net whose scales are stacks of blocks: layer normalisation, 1x1 convolution, 3x3
depthwise convolution, a gate (one half of the channels times the other), channel
attention reduced to one product, 1x1 convolution; then normalisation, 1x1 convolution,
gate, 1x1 convolution. Both parts are added to the block's input, scaled by `beta` and
`gamma`, which start at zero. The block counts are those of the published denoiser
(width 32 on SIDD), in whose 3-channel form it has 29,159,715 parameters.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Dtype

from ipv2.kernels.pixel_shuffle import pixel_shuffle
from ipv2.models.blocks import (
    ChannelNorm,
    Conv,
    DepthwiseConv,
    HalvingConv,
    batch_norm,
    centre_slice,
    check_image,
    crop_like,
    near_zero_init,
    pad_to_multiple,
)


class NAFNet(nn.Module):
    """Nonlinear-activation-free network for denoising.

    Departs from NAFNet: edge pixels pad sides to a multiple of 2^scales; the published
    code pads with zeros, which are water here. The last kernel starts near zero, so an
    untrained network nearly returns its input.

    Channel attention averages over the whole input image, so tiles and the whole image
    give different results (`radius` is None). Statistics are closest to those of
    training if tiles have the size of the training patches.

    Attributes:
      channels: Number of neighbouring input slices, odd; the middle one is denoised.
      width: Features at full size; doubled at every halving.
      encoder_blocks: Blocks per scale on the way down; one scale per halving.
      middle_blocks: Blocks at the smallest scale.
      decoder_blocks: Blocks per scale on the way up, from the smallest scale.
      norm: 'channel', as published, or 'batch': batch normalisation in its place, so
        that the network can be quantized without data.
      axis_name: Axis of the devices that share a batch in training; batch
        normalisation's statistics are then those of the whole batch. None: each device
        uses its own.
      remat: Whether to recompute a block's activations in the backward pass.
      dtype: Dtype of the layers; None for float32. Normalisation, averages and
        the last addition are always in float32.
      param_dtype: Dtype of the parameters.
    """

    channels: int = 1
    width: int = 32
    encoder_blocks: Sequence[int] = (2, 2, 4, 8)
    middle_blocks: int = 12
    decoder_blocks: Sequence[int] = (2, 2, 2, 2)
    norm: str = "channel"
    axis_name: str | None = None
    remat: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @property
    def radius(self) -> None:
        """None: channel attention depends on the whole image."""
        return None

    @property
    def stride(self) -> int:
        """Tile origins must be multiples of this."""
        return 2 ** len(self.encoder_blocks)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns denoised images.

        Args:
          x: (n, h, w, channels) in network units, of any size.
          train: With batch normalisation: normalise by the batch's statistics and
            update the running ones (collection `batch_stats`).

        Returns:
          float32 (n, h, w, 1), in network units.
        """
        check_image(x, self.channels, "NAFNet")
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            raise ValueError(
                "NAFNet needs as many decoder_blocks as encoder_blocks, got "
                f"{self.decoder_blocks} and {self.encoder_blocks}"
            )
        if self.norm not in ("channel", "batch"):
            raise ValueError(f"NAFNet's norm: 'channel' or 'batch', got {self.norm!r}")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        linear = {"kernel_init": initializers.lecun_normal(), **dtypes}
        norm = {"norm": self.norm, "train": train, "axis_name": self.axis_name}
        block = functools.partial(
            nn.remat(NAFBlock) if self.remat else NAFBlock, **norm, **dtypes
        )

        def blocks(y, count, name):
            for index in range(count):
                y = block(name=f"{name}_{index}")(y)
            return y

        y = Conv(self.width, 3, name="first", **linear)(pad_to_multiple(x, self.stride))
        kept, features = [], self.width
        for level, count in enumerate(self.encoder_blocks):
            y = blocks(y, count, f"encoder{level}")
            kept.append(y)
            features *= 2
            y = HalvingConv(features, name=f"halve{level}", **dtypes)(y)
        y = blocks(y, self.middle_blocks, "middle")
        for level, count in zip(
            reversed(range(len(kept))), self.decoder_blocks, strict=True
        ):
            wide = {"use_bias": False, "name": f"double{level}", **linear}
            y = kept[level] + pixel_shuffle(Conv(2 * features, 1, **wide)(y), 2)
            features //= 2
            y = blocks(y, count, f"decoder{level}")
        y = Conv(1, 3, kernel_init=near_zero_init(), name="last", **dtypes)(y)
        return centre_slice(x) + crop_like(y, x).astype(jnp.float32)


class NAFBlock(nn.Module):
    """Block of NAFNet: features of any number in, the same out.

    Attributes:
      norm: 'channel' or 'batch'.
      train: Whether batch normalisation uses the batch's statistics.
      axis_name: Of batch normalisation's devices.
      dtype: Dtype of the layers.
      param_dtype: Dtype of the parameters.
    """

    norm: str = "channel"
    train: bool = False
    axis_name: str | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of the shape of `x`."""
        channels = x.shape[-1]
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def pointwise(features, name):
            init = initializers.lecun_normal()
            return Conv(features, 1, name=name, kernel_init=init, **dtypes)

        def scale(name, y):
            zeros = initializers.zeros_init()
            value = self.param(name, zeros, (channels,), self.param_dtype)
            return y * value.astype(y.dtype).reshape(1, 1, 1, -1)

        def normalised(name, y):
            if self.norm == "channel":
                return ChannelNorm(1e-6, name=name, **dtypes)(y)
            statistics = {"train": self.train, "axis_name": self.axis_name}
            return batch_norm(name=name, **statistics, **dtypes)(y)

        y = normalised("norm1", x)
        y = pointwise(2 * channels, "conv1")(y)
        y = simple_gate(DepthwiseConv(name="conv2", **dtypes)(y))
        average = jnp.mean(y, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        y = y * pointwise(channels, "attention")(average.astype(y.dtype))
        x = x + scale("beta", pointwise(channels, "conv3")(y))
        y = normalised("norm2", x)
        y = simple_gate(pointwise(2 * channels, "conv4")(y))
        return x + scale("gamma", pointwise(channels, "conv5")(y))


def simple_gate(x: jax.Array) -> jax.Array:
    """The first half of the channels times the second."""
    first, second = jnp.split(x, 2, axis=-1)
    return first * second
