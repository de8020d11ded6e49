"""Residual networks for 32x32 images (He et al., CVPR 2016, section 4.2).

A 3x3 convolution and three stages of (depth - 2) / 6 basic blocks with 16, 32 and 64
channels; the second and third stage start with stride 2. ResNet-20 has 269,722
parameters for 10 classes with zero-padded shortcuts, 272,474 with projections.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.layers import Layers

Shortcut = Literal["zero_pad", "projection"]


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Attributes:
      layers: Makes the modules.
      features: Channels out.
      strides: Of the first convolution.
      shortcut: What makes the shortcut fit where size or channels change: 'zero_pad'
        takes every `strides`-th pixel and adds half of the missing channels, all zero,
        before and half behind (the paper's option A); 'projection' is a 1x1
        convolution with batch normalisation (option B).
    """

    layers: Layers
    features: int
    strides: int = 1
    shortcut: Shortcut = "zero_pad"

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
        return make.activation("relu", name="act2")(y + self._fit(x, train))

    def _fit(self, x: jax.Array, train: bool) -> jax.Array:
        if self.strides == 1 and x.shape[-1] == self.features:
            return x
        if self.shortcut == "zero_pad":
            x = x[:, :: self.strides, :: self.strides]
            missing = self.features - x.shape[-1]
            channels = (missing // 2, missing - missing // 2)
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), channels))
        make, strides = self.layers, self.strides
        y = make.conv(
            self.features, 1, strides=strides, padding=0, name="downsample_conv"
        )(x)
        y = make.batch_norm(name="downsample_bn")(y, train)
        return make.activation("identity", name="quant_shortcut")(y)


class CifarResNet(nn.Module):
    """Residual network for small images.

    Attributes:
      layers: Makes the modules.
      classes: Logits out.
      depth: Layers with weights: 8, 14, 20, 32, 44, 56, ..., 6 n + 2.
      shortcut: See `CifarBlock`.
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
        """Logits and features.

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
                x = CifarBlock(
                    layers=make,
                    features=self.width << stage,
                    strides=2 if stage and not index else 1,
                    shortcut=self.shortcut,
                    name=f"layer{stage + 1}_{index}",
                )(x, train)
        pooled = make.activation("identity", name="quant_pooled")(jnp.mean(x, (1, 2)))
        return make.dense(self.classes, name="linear")(pooled), x
