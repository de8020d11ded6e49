"""CNN-10: the small baseline (Chen et al., Biomed. Opt. Express 8(2), 2017).

Three convolutions, 9x9 to 64, 3x3 to 32, 5x5 to 1, ReLU between: 24,513 parameters, the
24.5 k of ldct-benchmark, whose name for the network this is.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Dtype

from ipv2.models.blocks import Conv, centre_slice, check_image, near_zero_init

# Pixels that the three layers see beyond their own: 4 + 1 + 2.
_RADIUS = 7


class CNN10(nn.Module):
    """Three-layer convolutional denoiser.

    Departs from CNN-10: by default the network predicts what to add to its input
    (`residual=False` for the published form), because a short training then starts from
    the input and not from nothing. The image is continued by its edge pixels, once,
    where the published code pads every layer with zeros: zero is water here, and would
    put a frame of it around the air.

    Attributes:
      channels: Neighbouring slices in, odd; the one in the middle is denoised.
      residual: Add the input to the output, in float32.
      dtype: What the layers compute in; None for float32.
      param_dtype: What the parameters are kept in.
    """

    channels: int = 1
    residual: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @property
    def radius(self) -> int:
        """Pixels a result depends on beyond its own, to every side."""
        return _RADIUS

    @property
    def stride(self) -> int:
        """Tile origins must be multiples of this."""
        return 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Denoised images.

        Args:
          x: (n, h, w, channels) in network units, of any size.
          train: Makes no difference to this network.

        Returns:
          float32 (n, h, w, 1), in network units.
        """
        check_image(x, self.channels, "CNN-10")
        margin = (_RADIUS, _RADIUS)
        y = jnp.pad(x, ((0, 0), margin, margin, (0, 0)), mode="edge")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = nn.relu(Conv(64, 9, "valid", name="conv1", **dtypes)(y))
        y = nn.relu(Conv(32, 3, "valid", name="conv2", **dtypes)(y))
        # A residual network starts near the identity; a direct one at LeCun's scale.
        last = near_zero_init() if self.residual else initializers.lecun_normal()
        y = Conv(1, 5, "valid", kernel_init=last, name="conv3", **dtypes)(y)
        y = y.astype(jnp.float32)
        return centre_slice(x) + y if self.residual else y
