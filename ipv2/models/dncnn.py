"""DnCNN: residual denoiser with BatchNorm (Zhang et al., IEEE TIP 26(7), 2017).

A 3x3 convolution with ReLU, 15 times convolution, batch normalisation and ReLU, and a
last convolution, all with 64 filters; the output is the noise, which is subtracted from
the input. Biases where the authors' PyTorch code has them (only the first layer):
556,096 parameters for one channel, and 1,920 running statistics.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from ipv2.models.blocks import Conv, centre_slice, check_image, near_zero_init


class DnCNN(nn.Module):
    """Residual denoiser of `depth` convolutions with batch normalisation.

    Departs from DnCNN: running statistics forget a tenth a step, where the authors'
    PyTorch code gives 0.95 to a parameter that means the opposite there, and so keeps
    little more than the last batch. The last kernel starts near zero, so that an
    untrained network nearly returns its input.

    Attributes:
      channels: Neighbouring slices in, odd; the one in the middle is denoised.
      width: Filters of every layer but the last.
      depth: Number of convolutions, at least 2.
      axis_name: Of the devices that share a batch in training; its statistics are
        then those of the whole batch. None: each device's own.
      remat: Recompute a layer's activations in the backward pass instead of keeping
        them.
      dtype: What the layers compute in; None for float32. Statistics and the
        subtraction are in float32 whatever it is.
      param_dtype: What the parameters are kept in.
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
        """Pixels a result depends on beyond its own, to every side."""
        return self.depth

    @property
    def stride(self) -> int:
        """Tile origins must be multiples of this."""
        return 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Denoised images.

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
                not train,
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
    use_running_average: bool
    axis_name: str | None
    dtype: Dtype | None
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = Conv(self.width, 3, use_bias=False, name="conv", **dtypes)(x)
        norm = nn.BatchNorm(
            self.use_running_average,
            momentum=0.9,
            epsilon=1e-4,
            axis_name=self.axis_name,
            name="norm",
            **dtypes,
        )
        return nn.relu(norm(y))
