"""CNN-10: the small baseline (Chen et al., Biomed. Opt. Express 8(2), 2017).

Three convolutions, 9x9 to 64, 3x3 to 32, 5x5 to 1, with ReLU between: 24,513
parameters, the 24.5 k of ldct-benchmark, which also gave the network this name.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Dtype

from ipv2.models.blocks import Conv, centre_slice, check_image, near_zero_init

# The radii of the three layers: 4 + 1 + 2.
_RADIUS = 7


class CNN10(nn.Module):
    """Three-layer convolutional denoiser.

    Departs from CNN-10: by default the network predicts the difference to its input
    (`residual=False` gives the published form), so a short training starts from the
    input. The image is padded once with its edge pixels; the published code pads every
    layer with zeros, which here would put a frame of water around the air.

    Attributes:
      channels: Number of neighbouring input slices, odd; the middle one is denoised.
      residual: Add the input to the output, in float32.
      dtype: Dtype of the layers; None for float32.
      param_dtype: Dtype of the parameters.
    """

    channels: int = 1
    residual: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @property
    def radius(self) -> int:
        """A result depends on so many pixels around it, in every direction."""
        return _RADIUS

    @property
    def stride(self) -> int:
        """Tile origins must be multiples of this."""
        return 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns denoised images.

        Args:
          x: (n, h, w, channels) in network units, of any size.
          train: Ignored by this network.

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
