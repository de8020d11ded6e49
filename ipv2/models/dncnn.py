"""DnCNN: residual denoiser with BatchNorm (Zhang et al., IEEE TIP 26(7), 2017).

A 3x3 convolution with ReLU, 15 times convolution, batch normalisation and ReLU, and a
last convolution, all with 64 filters. The output is the noise, which is subtracted from
the input. As in the authors' PyTorch code only the first layer has biases: 556,096
parameters for one channel, and 1,920 running statistics.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from ipv2.models.blocks import (
    Conv,
    batch_norm,
    centre_slice,
    check_image,
    near_zero_init,
)


class DnCNN(nn.Module):
    """Residual denoiser of `depth` convolutions with batch normalisation.

    Departs from DnCNN: running statistics forget a tenth per step. The authors' PyTorch
    code passes 0.95 to a parameter with the opposite meaning, and so keeps little more
    than the last batch. The last kernel starts near zero, so an untrained network
    nearly returns its input.

    Attributes:
      channels: Number of neighbouring input slices, odd; the middle one is denoised.
      width: Filters of every layer but the last.
      depth: Number of convolutions, at least 2.
      axis_name: Axis of the devices that share a batch in training; statistics are then
        those of the whole batch. None: each device uses its own.
      remat: Whether to recompute a layer's activations in the backward pass.
      dtype: Dtype of the layers; None for float32. Statistics and the subtraction are
        always in float32.
      param_dtype: Dtype of the parameters.
    """

    channels: int = 1
    width: int = 64
    depth: int = 17
    axis_name: str | None = None
    remat: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @property
    def radius(self) -> int:
        """A result depends on so many pixels around it, in every direction."""
        return self.depth

    @property
    def stride(self) -> int:
        """Tile origins must be multiples of this."""
        return 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns denoised images.

        Args:
          x: (n, h, w, channels) in network units, of any size.
          train: Normalise by the batch's statistics and update the running ones
            (collection `batch_stats`); otherwise use the running ones.

        Returns:
          float32 (n, h, w, 1), in network units.
        """
        check_image(x, self.channels, "DnCNN")
        if self.depth < 2:
            raise ValueError(f"DnCNN needs a depth of at least 2, got {self.depth}")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        layer = nn.remat(_Layer) if self.remat else _Layer
        y = nn.relu(Conv(self.width, 3, name="conv1", **dtypes)(x))
        for index in range(2, self.depth):
            y = layer(
                self.width,
                train,
                self.axis_name,
                name=f"layer{index}",
                **dtypes,
            )(y)
        last = {"use_bias": False, "kernel_init": near_zero_init()}
        noise = Conv(1, 3, name=f"conv{self.depth}", **last, **dtypes)(y)
        return centre_slice(x) - noise.astype(jnp.float32)


class _Layer(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    width: int
    train: bool
    axis_name: str | None
    dtype: Dtype | None
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = Conv(self.width, 3, use_bias=False, name="conv", **dtypes)(x)
        norm = batch_norm(
            train=self.train, axis_name=self.axis_name, name="norm", **dtypes
        )
        return nn.relu(norm(y))
