"""A network that is not in the zoo, as a user would write it (acq/models/README.md)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.layers.float import Layers


class PlainNet(nn.Module):
    """Three convolutions, each with batch normalisation and ReLU, and a classifier.

    Attributes:
      layers: Makes the modules.
      classes: Logits out.
      width: Channels of the first convolution.
    """

    layers: Layers
    classes: int
    width: int = 8

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Logits (n, classes), and features (n, h / 4, w / 4, 4 width)."""
        make = self.layers
        x = make.activation("identity", name="quant_input")(x)
        for i in range(3):
            strides = 2 if i else 1
            x = make.conv(
                self.width << i, 3, strides=strides, padding=1, name=f"conv{i}"
            )(x)
            x = make.batch_norm(name=f"bn{i}")(x, train)
            x = make.activation("relu", name=f"act{i}")(x)
        pooled = make.activation("identity", name="quant_pooled")(jnp.mean(x, (1, 2)))
        return make.dense(self.classes, name="head")(pooled), x
