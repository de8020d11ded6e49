"""RED-CNN: residual encoder-decoder of 10 layers (Chen et al., IEEE TMI 36(12), 2017).

Five convolutions without padding shrink the image by 20 pixels, five transposed ones
grow it back; features of the encoder are added where sizes meet again, and the input is
added to the output. With 96 filters of 5x5: 1,848,865 parameters.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Dtype

from ipv2.models.blocks import Conv, check_image


class REDCNN(nn.Module):
    """Residual encoder-decoder convolutional denoiser.

    Departs from RED-CNN: no ReLU after the last addition, because in units where air is
    -1 it would clip everything below water. The last kernel starts a
    hundred times smaller than by He's rule, so that an untrained network nearly returns
    its input and the first steps improve on it.

    Attributes:
      features: Filters of every layer but the last.
      kernel_size: Side of the square kernels, odd.
      dtype: What the layers compute in; None for float32. The input is added to the
        output in float32 whatever it is: bfloat16 would round 1000 HU to 4 HU.
      param_dtype: What the parameters are kept in.
    """

    features: int = 96
    kernel_size: int = 5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Denoised images.

        Args:
          x: (n, h, w, 1) in network units; sides of at least 21 pixels (5x5 kernels).

        Returns:
          float32 of the same shape, in network units.
        """
        check_image(x, 5 * (self.kernel_size - 1) + 1, "RED-CNN")

        def layer(name, padding, features=self.features, **kwargs):
            return Conv(
                features,
                self.kernel_size,
                padding,
                self.dtype,
                self.param_dtype,
                name=name,
                **kwargs,
            )

        encoded = [x]
        for index in range(1, 6):
            encoded.append(nn.relu(layer(f"encoder{index}", "valid")(encoded[-1])))
        y = encoded[5]
        y = nn.relu(layer("decoder1", "full")(y) + encoded[4])
        y = nn.relu(layer("decoder2", "full")(y))
        y = nn.relu(layer("decoder3", "full")(y) + encoded[2])
        y = nn.relu(layer("decoder4", "full")(y))
        small = initializers.variance_scaling(2e-4, "fan_in", "truncated_normal")
        noise = layer("decoder5", "full", features=1, kernel_init=small)(y)
        return x.astype(jnp.float32) + noise.astype(jnp.float32)
