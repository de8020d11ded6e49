"""Restormer: transformer with attention over channels (Zamir et al., CVPR 2022).

A U-Net of transformer blocks. Attention ("MDTA") is between channels: a head of d
channels has a d x d map, whatever the image's size, so memory grows with the pixels and
not with their square: 1.4 GB for a 512x512 slice in float32. The feed-forward part
("GDFN") is gated: GELU of one half times the other, behind a depthwise convolution.
Convolutions have no bias. 26,126,644 parameters in the published 3-channel form
(26.13 M).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Dtype

from ipv2.kernels.channel_attention import channel_attention
from ipv2.kernels.pixel_shuffle import pixel_shuffle, pixel_unshuffle
from ipv2.models.blocks import (
    ChannelNorm,
    Conv,
    DepthwiseConv,
    centre_slice,
    check_image,
    crop_like,
    near_zero_init,
    pad_to_multiple,
)


class Restormer(nn.Module):
    """Restoration transformer.

    Departs from Restormer: edge pixels pad sides to a multiple of 2^scales, and the
    last kernel starts near zero, so an untrained network nearly returns its input.
    Layer normalisation is the published default, with a bias.

    Attention sums over the whole input image, so tiles and the whole image give
    different results (`radius` is None).

    Attributes:
      channels: Number of neighbouring input slices, odd; the middle one is denoised.
      width: Features at full size; doubled at every halving.
      blocks: Blocks per scale, from full size to the smallest.
      heads: Attention heads per scale, from full size to the smallest.
      refinement_blocks: Blocks after the last scale of the way up.
      expansion: Hidden features of the feed-forward part, of those of the block.
      remat: Whether to recompute a block's activations in the backward pass.
      dtype: Dtype of the layers; None for float32. Normalisation, attention
        maps and the last addition are always in float32.
      param_dtype: Dtype of the parameters.
    """

    channels: int = 1
    width: int = 48
    blocks: Sequence[int] = (4, 6, 6, 8)
    heads: Sequence[int] = (1, 2, 4, 8)
    refinement_blocks: int = 4
    expansion: float = 2.66
    remat: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @property
    def radius(self) -> None:
        """None: attention depends on the whole image."""
        return None

    @property
    def stride(self) -> int:
        """Tile origins must be multiples of this."""
        return 2 ** (len(self.blocks) - 1)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns denoised images.

        Args:
          x: (n, h, w, channels) in network units, of any size.
          train: Ignored by this network.

        Returns:
          float32 (n, h, w, 1), in network units.
        """
        check_image(x, self.channels, "Restormer")
        if len(self.blocks) != len(self.heads) or len(self.blocks) < 2:
            raise ValueError(
                "Restormer needs blocks and heads for the same scales, two or more, "
                f"got {self.blocks} and {self.heads}"
            )
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        block = nn.remat(RestormerBlock) if self.remat else RestormerBlock

        def stack(y, count, heads, name):
            for index in range(count):
                y = block(heads, self.expansion, name=f"{name}_{index}", **dtypes)(y)
            return y

        def conv(features, size, name):
            return _linear_conv(features, size, name, dtypes)

        last = len(self.blocks) - 1
        y = conv(self.width, 3, "first")(pad_to_multiple(x, self.stride))
        kept, features = [], self.width
        for level in range(last):
            y = stack(y, self.blocks[level], self.heads[level], f"encoder{level}")
            kept.append(y)
            y = pixel_unshuffle(conv(features // 2, 3, f"halve{level}")(y), 2)
            features *= 2
        y = stack(y, self.blocks[last], self.heads[last], "middle")
        for level in reversed(range(last)):
            y = pixel_shuffle(conv(2 * features, 3, f"double{level}")(y), 2)
            features //= 2
            y = jnp.concatenate([y, kept[level]], axis=-1)
            if level:  # At full size both halves stay: twice the features.
                y = conv(features, 1, f"join{level}")(y)
            y = stack(y, self.blocks[level], self.heads[level], f"decoder{level}")
        y = stack(y, self.refinement_blocks, self.heads[0], "refinement")
        small = {"use_bias": False, "kernel_init": near_zero_init()}
        y = Conv(1, 3, name="last", **small, **dtypes)(y)
        return centre_slice(x) + crop_like(y, x).astype(jnp.float32)


class RestormerBlock(nn.Module):
    """Transformer block: attention over channels, then a gated feed-forward part.

    Attributes:
      heads: Attention heads; the channels must be a multiple.
      expansion: Hidden features of the feed-forward part, of those of the block.
      dtype: Dtype of the layers.
      param_dtype: Dtype of the parameters.
    """

    heads: int
    expansion: float = 2.66
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of the shape of `x`."""
        channels = x.shape[-1]
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def pointwise(features, name):
            return _linear_conv(features, 1, name, dtypes)

        y = ChannelNorm(1e-5, name="norm1", **dtypes)(x)
        y = pointwise(3 * channels, "qkv")(y)
        y = DepthwiseConv(use_bias=False, name="qkv_depthwise", **dtypes)(y)
        query, key, value = jnp.split(y, 3, axis=-1)
        ones = initializers.ones_init()
        temperature = self.param("temperature", ones, (self.heads,), self.param_dtype)
        y = channel_attention(query, key, value, temperature.astype(jnp.float32))
        x = x + pointwise(channels, "attention_out")(y)
        y = ChannelNorm(1e-5, name="norm2", **dtypes)(x)
        y = pointwise(2 * int(channels * self.expansion), "hidden")(y)
        y = DepthwiseConv(use_bias=False, name="hidden_depthwise", **dtypes)(y)
        first, second = jnp.split(y, 2, axis=-1)
        y = nn.gelu(first, approximate=False) * second
        return x + pointwise(channels, "hidden_out")(y)


def _linear_conv(features: int, size: int, name: str, dtypes: dict) -> Conv:
    init = initializers.lecun_normal()
    return Conv(features, size, name=name, kernel_init=init, use_bias=False, **dtypes)
