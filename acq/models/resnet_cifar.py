"""Residual networks for 32x32 images (He et al., CVPR 2016, section 4.2).

They have a 3x3 convolution and three stages of (depth - 2) / 6 basic blocks with 16, 32
and 64 channels. The second and third stage start with stride 2. ResNet-20 has 269,722
parameters for 10 classes with zero-padded shortcuts, 272,474 with projections.
"""

import flax.linen as nn
import jax

from acq.layers.float import Layers, perturbed
from acq.models.pooling import global_mean_pool
from acq.models.residual import BasicBlock, Shortcut


class CifarResNet(nn.Module):
    """Residual network for small images.

    Attributes:
      layers: Makes the modules.
      classes: Number of logits.
      depth: Layers with weights: 8, 14, 20, 32, 44, 56, ..., 6 n + 2.
      shortcut: See `BasicBlock`.
      width: Channels of the first stage.
    """

    layers: Layers
    classes: int
    depth: int = 20
    shortcut: Shortcut = "zero_pad"
    width: int = 16

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Returns logits and features.

        Args:
          x: (n, h, w, c), normalised; sides are best multiples of 4.
          train: Whether batch normalisation uses the batch's statistics.

        Returns:
          Logits (n, classes), and the last stage's features (n, h / 4, w / 4, 4 width).
        """
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth must be 8, 14, 20, ..., 6 n + 2, got {self.depth}")
        make = self.layers
        x = make.activation("identity", name="quant_input")(x)
        x = make.conv(self.width, 3, padding=1, name="conv1")(x)
        x = make.batch_norm(name="bn1")(x, train)
        x = make.activation("relu", name="act1")(x)
        for stage in range(3):
            for index in range((self.depth - 2) // 6):
                x = BasicBlock(
                    layers=make,
                    features=self.width << stage,
                    strides=2 if stage and not index else 1,
                    shortcut=self.shortcut,
                    name=f"layer{stage + 1}_{index}",
                )(x, train)
        x = perturbed(self, x)
        pooled = make.activation("identity", name="quant_pooled")(global_mean_pool(x))
        return make.dense(self.classes, name="linear")(pooled), x
