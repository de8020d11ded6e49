"""The time-conditioned U-Net that flow models share (Ho et al., DDPM, 2020).

Levels have `width` times `multipliers` channels. There is one residual block per level
on the way down, two in the middle, and two per level on the way up, where features of
the way down are concatenated. There is no attention. A residual block is

    y = conv3x3(swish(norm(x))) + dense(swish(embedding))
    x + layer(dropout(swish(norm(y))))

with a 1x1 convolution of x where channels change. Flow models differ in `layer`: a
plain convolution in FM, the Mixer in FFM.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype
from jaxtyping import Array, Float, Key

from common.resampling import convolve_doubled, convolve_halved
from ipv2.models.blocks import Conv, crop_like, near_zero_init, pad_to_multiple

NORM_GROUPS = 8
NORM_EPSILON = 1e-6
# Longest period of the time embedding, as for DDPM's 1000 noise levels.
_LONGEST_PERIOD = 10_000.0

# For all kernels: activations are smooth and small around zero. ReLU's gain of 2 would
# let them grow through 14 blocks.
kernel_init = initializers.variance_scaling(1.0, "fan_in", "truncated_normal")

# A layer of the residual block: (features=..., dtype=..., param_dtype=..., name=...).
LayerFactory = Callable[..., nn.Module]


def embed_time(
    time: Float[Array, "n"], size: int, scale: float
) -> Float[Array, "n size"]:
    """Returns sines, then cosines, of scale * time at size / 2 periods.

    Periods are from 2 pi to 20,000 pi.

    Args:
      time: In [0, 1].
      size: Even, at least 4.
      scale: 1000 spreads [0, 1] over the periods; at 1, as in the published code, most
        of the embedding is constant.
    """
    half = size // 2
    rate = math.log(_LONGEST_PERIOD) / (half - 1)
    frequency = jnp.exp(-rate * jnp.arange(half, dtype=jnp.float32))
    angle = scale * time.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def drop(
    rngs: Key[Array, "n"], x: Float[Array, "n *shape"], rate: float
) -> Float[Array, "n *shape"]:
    """Applies dropout: 0 with probability `rate`, else x / (1 - rate).

    Srivastava et al., JMLR 15, 2014. Unlike in `flax.linen.Dropout`, the dropped
    activations of an example follow from its own key, not from the other examples.

    Args:
      rngs: A key per example.
      x: Activations.
      rate: In [0, 1).
    """
    kept = jax.vmap(lambda rng: jax.random.bernoulli(rng, 1 - rate, x.shape[1:]))(rngs)
    return jnp.where(kept, x / (1 - rate), 0)


class ResamplingConv(nn.Module):
    """3x3 convolution that halves an image (stride 2) or doubles it (nearest).

    Parameters are those of `Conv` with a 3x3 kernel.

    Attributes:
      features: Channels out.
      doubles: Whether to double the size instead of halving it.
      dtype: Dtype of the computation; None for that of input and parameters.
      param_dtype: Dtype of the parameters.
    """

    features: int
    doubles: bool
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features (n, h / 2, w / 2, features) or (n, 2 h, 2 w, features)."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape, self.param_dtype)
        bias = self.param(
            "bias", initializers.zeros_init(), (self.features,), self.param_dtype
        )
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = convolve_doubled(x, kernel) if self.doubles else convolve_halved(x, kernel)
        return y + bias.reshape(1, 1, 1, -1)


class ResidualBlock(nn.Module):
    """Two convolutions around the time embedding, added to the input.

    Attributes:
      features: Channels out.
      layer: Makes the second layer; see `LayerFactory`.
      dropout: Share of activations dropped before it, if keys are given.
      dtype: Dtype of the layers.
      param_dtype: Dtype of the parameters.
    """

    features: int
    layer: LayerFactory
    dropout: float
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        embedding: jax.Array,
        dropout_rngs: Key[Array, "n"] | None = None,
    ) -> jax.Array:
        """Features (n, h, w, features) from (n, h, w, c) and (n, e)."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = functools.partial(
            nn.GroupNorm, NORM_GROUPS, epsilon=NORM_EPSILON, **dtypes
        )
        dense = functools.partial(
            nn.Dense, self.features, kernel_init=kernel_init, **dtypes
        )
        y = nn.swish(norm(name="norm1")(x))
        y = Conv(self.features, 3, kernel_init=kernel_init, name="conv1", **dtypes)(y)
        y = y + dense(name="time")(nn.swish(embedding))[:, None, None, :]
        y = nn.swish(norm(name="norm2")(y))
        if dropout_rngs is not None:
            y = drop(dropout_rngs, y, self.dropout)
        y = self.layer(features=self.features, name="layer2", **dtypes)(y)
        if x.shape[-1] != self.features:
            x = dense(name="shortcut")(x)
        return x + y


class FlowUNet(nn.Module):
    """Velocity field on images; the base of FM and FFM, which define `layer`.

    Departs from the published FFM: time is scaled (`time_scale`). An example's dropout
    follows from its own key, and is active only if keys are given; the published code
    also drops in validation. The default is one channel. Images may have any size; edge
    pixels pad them to a multiple of `stride`. The last kernel starts near zero, so an
    untrained network's velocity is small and its integral nearly the input. GroupNorm
    and kernels start with flax's values.

    Attributes:
      channels: Channels of the image and of its velocity.
      width: Channels of the first level, a multiple of `width_multiple`.
      multipliers: Channels of each level as multiples of `width`.
      dropout: Share of activations dropped in every residual block.
      time_scale: Factor of times before their embedding; 1.0 is the published one.
      remat: Whether to recompute residual blocks' activations in the backward pass:
        about a third more time, several times less memory.
      dtype: Dtype of the layers; None for float32.
      param_dtype: Dtype of the parameters.
    """

    layer: ClassVar[LayerFactory]
    # `width`, and height and width of every level, must be multiples of these.
    width_multiple: ClassVar[int] = NORM_GROUPS
    size_multiple: ClassVar[int] = 1

    channels: int = 1
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = 0.1
    time_scale: float = 1000.0
    remat: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @property
    def radius(self) -> None:
        """None: GroupNorm makes every pixel depend on the whole image."""
        return None

    @property
    def stride(self) -> int:
        """Height and width are padded to a multiple of this."""
        return 2 ** (len(self.multipliers) - 1) * self.size_multiple

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w c"],
        time: Float[Array, "n"],
        *,
        dropout_rngs: Key[Array, "n"] | None = None,
    ) -> Float[Array, "n h w c"]:
        """Returns the velocity at x and time.

        Args:
          x: (n, h, w, channels) in network units, of any size.
          time: In [0, 1], one number per image.
          dropout_rngs: A key per example, for training; None: nothing is dropped.

        Returns:
          float32 of the same shape, network units per unit of time.

        Raises:
          ValueError: Shapes do not fit, or the width cannot be grouped.
        """
        self._check(x, time)
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = functools.partial(Conv, kernel_size=3, kernel_init=kernel_init, **dtypes)
        block_class = nn.remat(ResidualBlock) if self.remat else ResidualBlock

        numbers = itertools.count()

        def block(level: int, name: str, y: jax.Array) -> jax.Array:
            rngs = dropout_rngs
            if rngs is not None:
                rngs = jax.vmap(jax.random.fold_in, (0, None))(rngs, next(numbers))
            return block_class(
                self.width * self.multipliers[level],
                type(self).layer,
                self.dropout,
                name=name,
                **dtypes,
            )(y, embedding, rngs)

        embedding = embed_time(time, self.width, self.time_scale)
        dense = functools.partial(
            nn.Dense, 4 * self.width, kernel_init=kernel_init, **dtypes
        )
        embedding = dense(name="time1")(embedding)
        embedding = dense(name="time2")(nn.swish(embedding))

        y = conv(self.width, name="conv_in")(pad_to_multiple(x, self.stride))
        kept = [y]
        last = len(self.multipliers) - 1
        for level in range(last + 1):
            y = block(level, f"down{level}", y)
            kept.append(y)
            if level < last:
                y = ResamplingConv(y.shape[-1], False, name=f"halve{level}", **dtypes)(
                    y
                )
                kept.append(y)
        y = block(last, "middle0", y)
        y = block(last, "middle1", y)
        for level in range(last, -1, -1):
            for index in range(2):
                y = jnp.concatenate([y, kept.pop()], axis=-1)
                y = block(level, f"up{level}_{index}", y)
            if level:
                y = ResamplingConv(y.shape[-1], True, name=f"double{level}", **dtypes)(
                    y
                )
        y = nn.GroupNorm(NORM_GROUPS, epsilon=NORM_EPSILON, name="norm_out", **dtypes)(
            y
        )
        last_conv = Conv(
            self.channels, 3, kernel_init=near_zero_init(), name="conv_out", **dtypes
        )
        return crop_like(last_conv(nn.swish(y)), x).astype(jnp.float32)

    def _check(self, x: jax.Array, time: jax.Array) -> None:
        name = type(self).__name__
        if x.ndim != 4 or x.shape[-1] != self.channels:
            raise ValueError(
                f"{name} takes images of shape (n, h, w, {self.channels}), got "
                f"{x.shape}"
            )
        if time.shape != x.shape[:1]:
            raise ValueError(
                f"{name} takes one time per image, of shape {x.shape[:1]}, got "
                f"{time.shape}"
            )
        if self.width < 1 or self.width % self.width_multiple:
            raise ValueError(
                f"{name}'s width must be a multiple of {self.width_multiple} (groups "
                f"of its normalisation), got {self.width}"
            )
