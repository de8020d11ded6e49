"""Residual networks for large images (He et al., CVPR 2016), as in torchvision.

They have a 7x7 convolution and a max-pool, both of stride 2, and four stages of 64,
128, 256 and 512 channels. Each stage except the first starts with stride 2. Parameters
for 1000 classes:
ResNet-18 11,689,512; ResNet-34 21,797,672; ResNet-50 25,557,032.
"""

import flax.linen as nn
import jax

from acq.layers.float import Layers, perturbed
from acq.models.pooling import global_mean_pool, max_pool
from acq.models.residual import BasicBlock, Bottleneck


class ResNet(nn.Module):
    """Residual network for large images; its shortcuts are projections.

    Attributes:
      layers: Makes the modules.
      classes: Number of logits.
      stage_sizes: Blocks of each stage.
      bottleneck: Whether blocks are `Bottleneck`s instead of `BasicBlock`s.
      stride_in_first: See `Bottleneck`; basic blocks ignore it.
      width: Channels of the first stage, inside its blocks.
    """

    layers: Layers
    classes: int
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    stride_in_first: bool = False
    width: int = 64

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Returns logits and features.

        Args:
          x: (n, h, w, c), normalised; sides are best multiples of 32.
          train: Whether batch normalisation uses the batch's statistics.

        Returns:
          Logits (n, classes), and the last stage's features (n, h / 32, w / 32, f).
        """
        make = self.layers
        x = make.activation("identity", name="quant_input")(x)
        x = make.conv(self.width, 7, strides=2, padding=3, name="conv1")(x)
        x = make.batch_norm(name="bn1")(x, train)
        x = make.activation("relu", name="act1")(x)
        x = max_pool(x, 3, strides=2, padding=1)
        for stage, size in enumerate(self.stage_sizes):
            for index in range(size):
                x = self._block(stage, index)(x, train)
        x = perturbed(self, x)
        pooled = make.activation("identity", name="quant_pooled")(global_mean_pool(x))
        return make.dense(self.classes, name="fc")(pooled), x

    def _block(self, stage: int, index: int) -> BasicBlock | Bottleneck:
        features = self.width << stage
        strides = 2 if stage and not index else 1
        name = f"layer{stage + 1}_{index}"
        if self.bottleneck:
            return Bottleneck(
                self.layers, features, strides, self.stride_in_first, name=name
            )
        return BasicBlock(self.layers, features, strides, name=name)
