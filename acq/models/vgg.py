"""VGG with batch normalisation (Simonyan and Zisserman, ICLR 2015), as in torchvision.

It has 3x3 convolutions with biases, in stages that end with a 2x2 max-pool, and three
dense layers on 7x7 features. VGG16-BN has 138,365,992 parameters for 1000 classes. The
dropout between the dense layers is left out: it has no parameters, and nothing here
trains with it.

Modules have torchvision's numbers: `features_0` is a convolution, `features_1` its
normalisation, `act_2` the activation, and pools count too.
"""

import flax.linen as nn
import jax

from acq.layers.float import Layers, perturbed
from acq.models.pooling import adaptive_mean_pool, max_pool

VGG16 = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)
_POOLED_SIZE = 7


class VGG(nn.Module):
    """VGG with batch normalisation.

    Attributes:
      layers: Makes the modules.
      classes: Number of logits.
      stages: Channels of each convolution of each stage.
      hidden: Outputs of the first two dense layers.
    """

    layers: Layers
    classes: int
    stages: tuple[tuple[int, ...], ...] = VGG16
    hidden: int = 4096

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Returns logits and features.

        Args:
          x: (n, h, w, c), normalised; sides are best multiples of 32.
          train: Whether batch normalisation uses the batch's statistics.

        Returns:
          Logits (n, classes), and the last convolution's features before its pool,
          (n, h / 16, w / 16, 512) with VGG16's stages.
        """
        make = self.layers
        x = make.activation("identity", name="quant_input")(x)
        features = x
        index = 0
        for stage, widths in enumerate(self.stages):
            for channels in widths:
                name = f"features_{index}"
                x = make.conv(channels, 3, padding=1, use_bias=True, name=name)(x)
                x = make.batch_norm(name=f"features_{index + 1}")(x, train)
                x = make.activation("relu", name=f"act_{index + 2}")(x)
                index += 3
            if stage == len(self.stages) - 1:
                x = perturbed(self, x)
            features = x
            x = max_pool(x, 2, strides=2)
            index += 1
        x = adaptive_mean_pool(x, _POOLED_SIZE)
        x = make.activation("identity", name="quant_pooled")(x)
        # Channels first, the order of published dense kernels.
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        for layer in (0, 3):
            x = make.dense(self.hidden, name=f"classifier_{layer}")(x)
            x = make.activation("relu", name=f"act_classifier_{layer + 1}")(x)
        return make.dense(self.classes, name="classifier_6")(x), features
