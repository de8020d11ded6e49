"""Residual blocks (He et al., CVPR 2016), with PyTorch's names of their parts.

The branch beside the shortcut, `quant_branch`, and a projected shortcut,
`quant_shortcut`, have an identity activation, because an integer runtime needs both
quantized before it adds them. A shortcut without a projection already is a quantized
activation. Padding with zeros, which are exactly on every grid, does not change that.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.layers.float import Layers

Shortcut = Literal["zero_pad", "projection"]
EXPANSION = 4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Attributes:
      layers: Makes the modules.
      features: Output channels.
      strides: Of the first convolution.
      shortcut: Form of the shortcut if size or channels change. 'projection' is a 1x1
        convolution with batch normalisation (option B of the paper). 'zero_pad' takes
        every `strides`-th pixel and adds zero channels, half of them before the others
        and half after them (option A).
    """

    layers: Layers
    features: int
    strides: int = 1
    shortcut: Shortcut = "projection"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features (n, h / strides, w / strides, features)."""
        make = self.layers
        y = make.conv(self.features, 3, strides=self.strides, padding=1, name="conv1")(
            x
        )
        y = make.batch_norm(name="bn1")(y, train)
        y = make.activation("relu", name="act1")(y)
        y = make.conv(self.features, 3, padding=1, name="conv2")(y)
        y = make.batch_norm(name="bn2")(y, train)
        y = make.activation("identity", name="quant_branch")(y)
        if self.shortcut == "zero_pad":
            x = _zero_pad(x, self.features, self.strides)
        else:
            x = _project(make, x, self.features, self.strides, train)
        return make.activation("relu", name="act2")(y + x)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, and a shortcut around them.

    Attributes:
      layers: Makes the modules.
      features: Inner channels; the output has four times as many.
      strides: Of the second convolution.
      stride_in_first: Whether the first convolution has the strides instead, as in the
        paper and in pytorchcv. In torchvision the second has them.
    """

    layers: Layers
    features: int
    strides: int = 1
    stride_in_first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features (n, h / strides, w / strides, 4 features)."""
        make = self.layers
        first, second = (self.strides, 1) if self.stride_in_first else (1, self.strides)
        y = make.conv(self.features, 1, strides=first, padding=0, name="conv1")(x)
        y = make.batch_norm(name="bn1")(y, train)
        y = make.activation("relu", name="act1")(y)
        y = make.conv(self.features, 3, strides=second, padding=1, name="conv2")(y)
        y = make.batch_norm(name="bn2")(y, train)
        y = make.activation("relu", name="act2")(y)
        features = EXPANSION * self.features
        y = make.conv(features, 1, padding=0, name="conv3")(y)
        y = make.batch_norm(name="bn3")(y, train)
        y = make.activation("identity", name="quant_branch")(y)
        x = _project(make, x, features, self.strides, train)
        return make.activation("relu", name="act3")(y + x)


def _zero_pad(x: jax.Array, features: int, strides: int) -> jax.Array:
    missing = features - x.shape[-1]
    channels = (missing // 2, missing - missing // 2)
    return jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), channels))


def _project(
    make: Layers, x: jax.Array, features: int, strides: int, train: bool
) -> jax.Array:
    if strides == 1 and x.shape[-1] == features:
        return x
    x = make.conv(features, 1, strides=strides, padding=0, name="downsample_conv")(x)
    x = make.batch_norm(name="downsample_bn")(x, train)
    return make.activation("identity", name="quant_shortcut")(x)
