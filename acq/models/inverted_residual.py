"""Inverted residual blocks, of MobileNetV2 and EfficientNet-Lite.

An inverted residual is a 1x1 convolution to `expansion` times the channels, a depthwise
convolution, and a 1x1 to few channels without an activation, the linear bottleneck.

An integer runtime needs linear bottlenecks and their sums with a shortcut quantized. So
both have an identity activation, `quant_project` and `quant_sum`.

PyTorch's and TensorFlow's networks differ in their padding and in the epsilon of batch
normalisation (`Style`).
"""

import dataclasses

import flax.linen as nn
import jax

from acq.layers.float import Layers
from acq.layers.operations import Padding, same_padding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """What a network's framework decides about its layers.

    Attributes:
      same_padding: Whether padding is TensorFlow's "SAME", not PyTorch's half kernel.
      epsilon: Of batch normalisation.
    """

    same_padding: bool
    epsilon: float

    def padding(self, x: jax.Array, kernel_size: int, strides: int) -> Padding:
        """Returns the padding of a convolution of `x`, (n, h, w, c)."""
        if self.same_padding:
            return same_padding(x.shape[1:3], kernel_size, strides)
        return kernel_size // 2


PYTORCH = Style(same_padding=False, epsilon=1e-5)
TENSORFLOW = Style(same_padding=True, epsilon=1e-3)


class ConvNormActivation(nn.Module):
    """Convolution, batch normalisation and ReLU6.

    Attributes:
      layers: Makes the modules.
      features: Output channels.
      kernel_size: Side of the kernel, odd.
      strides: Of the convolution.
      style: Of padding and normalisation.
    """

    layers: Layers
    features: int
    kernel_size: int
    strides: int = 1
    style: Style = PYTORCH

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features (n, h / strides, w / strides, features)."""
        make, style = self.layers, self.style
        x = make.conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=style.padding(x, self.kernel_size, self.strides),
            name="conv",
        )(x)
        x = make.batch_norm(epsilon=style.epsilon, name="bn")(x, train)
        return make.activation("relu6", name="act")(x)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear bottleneck; a shortcut if shapes fit.

    Attributes:
      layers: Makes the modules.
      features: Output channels.
      expansion: Ratio of inner to input channels; 1 leaves out the first convolution.
      strides: Of the depthwise convolution.
      kernel_size: Side of its kernel, odd.
      style: Of padding and normalisation.
    """

    layers: Layers
    features: int
    expansion: int
    strides: int = 1
    kernel_size: int = 3
    style: Style = PYTORCH

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features (n, h / strides, w / strides, features)."""
        make, channels, style = self.layers, x.shape[-1], self.style
        inside = channels * self.expansion
        y = x
        if self.expansion != 1:
            y = make.conv(inside, 1, padding=0, name="conv_expand")(y)
            y = make.batch_norm(epsilon=style.epsilon, name="bn_expand")(y, train)
            y = make.activation("relu6", name="act_expand")(y)
        y = make.conv(
            inside,
            self.kernel_size,
            strides=self.strides,
            padding=style.padding(y, self.kernel_size, self.strides),
            groups=inside,
            name="conv_depthwise",
        )(y)
        y = make.batch_norm(epsilon=style.epsilon, name="bn_depthwise")(y, train)
        y = make.activation("relu6", name="act_depthwise")(y)
        y = make.conv(self.features, 1, padding=0, name="conv_project")(y)
        y = make.batch_norm(epsilon=style.epsilon, name="bn_project")(y, train)
        y = make.activation("identity", name="quant_project")(y)
        if self.strides != 1 or channels != self.features:
            return y
        return make.activation("identity", name="quant_sum")(x + y)
