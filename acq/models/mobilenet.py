"""MobileNetV2 (Sandler et al., CVPR 2018), as in torchvision.

An inverted residual is a 1x1 convolution to `expansion` times the channels, a depthwise
3x3, and a 1x1 to few channels without an activation, the linear bottleneck. There are
3,504,872 parameters for 1000 classes. Torchvision's dropout before the classifier is
left out: it has no parameters, and nothing here trains with it.

An integer runtime needs linear bottlenecks and their sums with a shortcut quantized. So
both have an identity activation, `quant_project` and `quant_sum`.
"""

import flax.linen as nn
import jax

from acq.layers.float import Layers, perturbed
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


class ConvNormActivation(nn.Module):
    """Convolution, batch normalisation and ReLU6.

    Attributes:
      layers: Makes the modules.
      features: Output channels.
      kernel_size: Side of the kernel, odd.
      strides: Of the convolution.
    """

    layers: Layers
    features: int
    kernel_size: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features (n, h / strides, w / strides, features)."""
        make = self.layers
        x = make.conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=self.kernel_size // 2,
            name="conv",
        )(x)
        x = make.batch_norm(name="bn")(x, train)
        return make.activation("relu6", name="act")(x)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear bottleneck; a shortcut if shapes fit.

    Attributes:
      layers: Makes the modules.
      features: Output channels.
      expansion: Ratio of inner to input channels; 1 leaves out the first convolution.
      strides: Of the depthwise convolution.
    """

    layers: Layers
    features: int
    expansion: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features (n, h / strides, w / strides, features)."""
        make, channels = self.layers, x.shape[-1]
        inside = channels * self.expansion
        y = x
        if self.expansion != 1:
            y = make.conv(inside, 1, padding=0, name="conv_expand")(y)
            y = make.batch_norm(name="bn_expand")(y, train)
            y = make.activation("relu6", name="act_expand")(y)
        y = make.conv(
            inside,
            3,
            strides=self.strides,
            padding=1,
            groups=inside,
            name="conv_depthwise",
        )(y)
        y = make.batch_norm(name="bn_depthwise")(y, train)
        y = make.activation("relu6", name="act_depthwise")(y)
        y = make.conv(self.features, 1, padding=0, name="conv_project")(y)
        y = make.batch_norm(name="bn_project")(y, train)
        y = make.activation("identity", name="quant_project")(y)
        if self.strides != 1 or channels != self.features:
            return y
        return make.activation("identity", name="quant_sum")(x + y)


def _multiple_of_8(channels: float) -> int:
    """Returns the nearest multiple of 8 that is at least 0.9 of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
