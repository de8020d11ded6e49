"""RED-CNN: residual encoder-decoder of 10 layers (Chen et al., IEEE TMI 36(12), 2017).

Five convolutions without padding shrink the image by 20 pixels, five transposed ones
grow it back; features of the encoder are added where sizes meet again, and the input is
added to the output. With 96 filters of 5x5: 1,848,865 parameters.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from ipv2.models.blocks import (
    Conv,
    centre_slice,
    check_image,
    crop_like,
    near_zero_init,
    pad_to_minimum,
)


class REDCNN(nn.Module):
    """Residual encoder-decoder convolutional denoiser.

    Departs from RED-CNN: there is no ReLU after the last addition, because in units
    where air is -1 it would clip everything below water. The last kernel starts a
    hundred times smaller than by He's rule, so an untrained network nearly returns its
    input, and the first steps improve on it. Edge pixels first pad an image that five
    convolutions would shrink to nothing.

    Attributes:
      channels: Number of neighbouring input slices, odd; the middle one is denoised.
      width: Filters of every layer but the last.
      kernel_size: Side of the square kernels, odd.
      dtype: Dtype of the layers; None for float32. The input is added to the
        output always in float32: bfloat16 would round 1000 HU to 4 HU.
      param_dtype: Dtype of the parameters.
    """

    channels: int = 1
    width: int = 96
    kernel_size: int = 5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @property
    def radius(self) -> int:
        """A result depends on so many pixels around it, in every direction."""
        return 5 * (self.kernel_size - 1)

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
        check_image(x, self.channels, "RED-CNN")

        def layer(name, padding, features=self.width, **kwargs):
            return Conv(
                features,
                self.kernel_size,
                padding,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=name,
                **kwargs,
            )

        encoded = [pad_to_minimum(x, self.radius + 1)]
        for index in range(1, 6):
            encoded.append(nn.relu(layer(f"encoder{index}", "valid")(encoded[-1])))
        y = encoded[5]
        y = nn.relu(layer("decoder1", "full")(y) + encoded[4])
        y = nn.relu(layer("decoder2", "full")(y))
        y = nn.relu(layer("decoder3", "full")(y) + encoded[2])
        y = nn.relu(layer("decoder4", "full")(y))
        last = near_zero_init()
        noise = layer("decoder5", "full", features=1, kernel_init=last)(y)
        return centre_slice(x) + crop_like(noise, x).astype(jnp.float32)
