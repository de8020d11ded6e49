"""EfficientNet-Lite0 (Google, 2020): EfficientNet-B0 for integer runtimes.

It is made of inverted residuals, with kernels of 3x3 and 5x5, and differs from
EfficientNet (Tan and Le, ICML 2019) in having ReLU6 instead of swish and no
squeeze-and-excitation. There are 4,652,008 parameters for 1000 classes. Padding and
epsilon are TensorFlow's, which the published weights need. Dropout and drop-connect are
left out: they have no parameters, and nothing here trains with them.
"""

import flax.linen as nn
import jax

from acq.layers.float import Layers, perturbed
from acq.models.inverted_residual import (
    TENSORFLOW,
    ConvNormActivation,
    InvertedResidual,
)
from acq.models.pooling import global_mean_pool

# Kernel size, expansion, channels, blocks and strides of each stage.
LITE0 = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite.

    Attributes:
      layers: Makes the modules.
      classes: Number of logits.
      stages: Kernel size, expansion, channels, blocks and strides of each stage.
      stem: Channels of the first convolution.
      head: Channels of the last convolution.
    """

    layers: Layers
    classes: int
    stages: tuple[tuple[int, int, int, int, int], ...] = LITE0
    stem: int = 32
    head: int = 1280

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Returns logits and features.

        Args:
          x: (n, h, w, c), normalised.
          train: Whether batch normalisation uses the batch's statistics.

        Returns:
          Logits (n, classes), and the last convolution's features, (n, h / 32, w / 32,
          1280) with the default stages, rounded up.
        """
        make = self.layers
        x = make.activation("identity", name="quant_input")(x)
        x = ConvNormActivation(
            make, self.stem, 3, strides=2, style=TENSORFLOW, name="features_0"
        )(x, train)
        index = 1
        for kernel_size, expansion, channels, blocks, strides in self.stages:
            for block in range(blocks):
                x = InvertedResidual(
                    layers=make,
                    features=channels,
                    expansion=expansion,
                    strides=1 if block else strides,
                    kernel_size=kernel_size,
                    style=TENSORFLOW,
                    name=f"features_{index}",
                )(x, train)
                index += 1
        x = ConvNormActivation(
            make, self.head, 1, style=TENSORFLOW, name=f"features_{index}"
        )(x, train)
        x = perturbed(self, x)
        pooled = make.activation("identity", name="quant_pooled")(global_mean_pool(x))
        return make.dense(self.classes, name="classifier")(pooled), x
