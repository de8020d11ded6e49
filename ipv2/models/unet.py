"""U-Net: residual encoder-decoder over scales (Ronneberger et al., MICCAI 2015).

Each scale has two 3x3 convolutions with ReLU. 2x2 maxima halve the image and double the
features, 2x2 transposed convolutions undo both, and the features of the way down are
joined to those of the way up. The input is added to the output. With 32 features and 4
halvings it has 7,759,521 parameters for one channel.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from ipv2.kernels.block_maximum import block_maximum
from ipv2.models.blocks import (
    Conv,
    DoublingConv,
    batch_norm,
    centre_slice,
    check_image,
    crop_like,
    near_zero_init,
    pad_to_multiple,
)


class UNet(nn.Module):
    """Residual U-Net for denoising.

    Departs from U-Net: convolutions are zero-padded, so sizes stay; the default is 32
    features instead of 64; there is no dropout; the output is one channel, which is
    added to the input. The published network has no normalisation; with `norm="batch"`
    it can be quantized without data.

    Attributes:
      channels: Number of neighbouring input slices, odd; the middle one is denoised.
      width: Features at full size; doubled at every halving.
      levels: Number of halvings.
      norm: 'none', or 'batch': batch normalisation between each 3x3 convolution, then
        without bias, and its ReLU.
      axis_name: Axis of the devices that share a batch in training; statistics are then
        those of the whole batch. None: each device uses its own.
      remat: Whether to recompute a scale's activations in the backward pass.
      dtype: Dtype of the layers; None for float32. The input is added to the
        output always in float32.
      param_dtype: Dtype of the parameters.
    """

    channels: int = 1
    width: int = 32
    levels: int = 4
    norm: str = "none"
    axis_name: str | None = None
    remat: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @property
    def radius(self) -> int:
        """A result depends on so many pixels around it, in every direction.

        At each scale two 3x3 convolutions add 2 pixels. A radius of r pixels around
        any pixel reaches ceil(r / 2) blocks around its own; R blocks around the block
        of a pixel end at most 2 * R + 1 pixels from it.
        """
        radius = 2
        for _ in range(self.levels):
            radius = -(-radius // 2) + 2
        for _ in range(self.levels):
            radius = 2 * radius + 1 + 2
        return radius

    @property
    def stride(self) -> int:
        """Tile origins must be multiples of this."""
        return 2**self.levels

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
        check_image(x, self.channels, "U-Net")
        if self.norm not in ("none", "batch"):
            raise ValueError(f"U-Net's norm is 'none' or 'batch', got {self.norm!r}")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = {"norm": self.norm, "train": train, "axis_name": self.axis_name}
        pair = functools.partial(
            nn.remat(_ConvPair) if self.remat else _ConvPair, **norm, **dtypes
        )
        y, kept = pad_to_multiple(x, self.stride), []
        for level in range(self.levels):
            y = pair(self.width << level, name=f"down{level}")(y)
            kept.append(y)
            y = block_maximum(y, 2)
        y = pair(self.width << self.levels, name="middle")(y)
        for level in reversed(range(self.levels)):
            features = self.width << level
            y = DoublingConv(features, name=f"double{level}", **dtypes)(y)
            y = jnp.concatenate([kept[level], y], axis=-1)
            y = pair(features, name=f"up{level}")(y)
        y = Conv(1, 1, kernel_init=near_zero_init(), name="last", **dtypes)(y)
        return centre_slice(x) + crop_like(y, x).astype(jnp.float32)


class _ConvPair(nn.Module):
    """Two 3x3 convolutions, each with ReLU, or batch normalisation and ReLU."""

    features: int
    norm: str
    train: bool
    axis_name: str | None
    dtype: Dtype | None
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        normed = self.norm == "batch"
        statistics = {"train": self.train, "axis_name": self.axis_name}
        for index in (1, 2):
            conv = {"use_bias": not normed, "name": f"conv{index}", **dtypes}
            x = Conv(self.features, 3, **conv)(x)
            if normed:
                x = batch_norm(name=f"norm{index}", **statistics, **dtypes)(x)
            x = nn.relu(x)
        return x
