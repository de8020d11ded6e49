"""MobileNetV2 (Sandler et al., CVPR 2018), as in torchvision.

It is made of inverted residuals and has 3,504,872 parameters for 1000 classes.
Torchvision's dropout before the classifier is left out: it has no parameters, and
nothing here trains with it.
"""

import flax.linen as nn
import jax

from acq.layers.float import Layers, perturbed
from acq.models.inverted_residual import ConvNormActivation, InvertedResidual
from acq.models.pooling import global_mean_pool

# Expansion, channels, blocks and strides of each stage.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _HEAD = 32, 1280


class MobileNetV2(nn.Module):
    """MobileNetV2.

    Attributes:
      layers: Makes the modules.
      classes: Number of logits.
      width_multiplier: Scales all channels, to multiples of 8; it scales the last
        convolution only if it is above 1.
      stages: Expansion, channels, blocks and strides of each stage.
    """

    layers: Layers
    classes: int
    width_multiplier: float = 1.0
    stages: tuple[tuple[int, int, int, int], ...] = STAGES

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Returns logits and features.

        Args:
          x: (n, h, w, c), normalised; sides are best multiples of 32.
          train: Whether batch normalisation uses the batch's statistics.

        Returns:
          Logits (n, classes), and the last convolution's features, (n, h / 32, w / 32,
          1280) with the default stages.
        """
        make, width = self.layers, self.width_multiplier
        x = make.activation("identity", name="quant_input")(x)
        stem = _multiple_of_8(_STEM * width)
        x = ConvNormActivation(make, stem, 3, strides=2, name="features_0")(x, train)
        index = 1
        for expansion, channels, blocks, strides in self.stages:
            for block in range(blocks):
                x = InvertedResidual(
                    layers=make,
                    features=_multiple_of_8(channels * width),
                    expansion=expansion,
                    strides=1 if block else strides,
                    name=f"features_{index}",
                )(x, train)
                index += 1
        head = _multiple_of_8(_HEAD * max(1.0, width))
        x = ConvNormActivation(make, head, 1, name=f"features_{index}")(x, train)
        x = perturbed(self, x)
        pooled = make.activation("identity", name="quant_pooled")(global_mean_pool(x))
        return make.dense(self.classes, name="classifier")(pooled), x


def _multiple_of_8(channels: float) -> int:
    """Returns the nearest multiple of 8 that is at least 0.9 of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
