"""The generator of samples: GDFQ's, and with ACQ's position condition.

    dense to `width` channels at a quarter of the image's size
    twice: enlarged by nearest neighbours, 3x3 convolution, leaky ReLU 0.2
    3x3 convolution to the image's channels, then pixels of them

GDFQ (Xu et al., ECCV 2020) normalises by the batch throughout, with an epsilon of 0.8
behind the two convolutions that enlarge. The label is an embedding that multiplies the
latent ('product', its CIFAR form) or a scale and offset in every normalisation ('norm',
its ImageNet form). Its pixels are tanh, normalised by the batch, so that saturation
costs nothing: at the rate of our recipes they end in two grey levels, and every class
gets a colour of its own.

With the teacher's normalisation given pixels are a sigmoid's instead, of images whose
brightness, colour and contrast are the latent's alone: black and white are as rare as
the teacher's statistics have them, and a class has to be shown by its shape.

ACQ adds the centre of attention (arXiv 2301.07266; the form is not in its abstract):
as the place of a window on wider first features, which what is shown moves with; as a
Gaussian heat map beside the features at up to half the image's size; or joined to the
latent.

The first dense layer starts as flax's do, with 3 times the variance of PyTorch's; the
normalisation behind it makes both the same but for how fast Adam turns them.

Hidden layers normalise by the batch always, also when samples are made for the student,
so there are no running statistics and a sample depends on its batch.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Initializer
from jaxtyping import Array, Float

from acq.classifier import Normalisation
from acq.layers.float import Conv, conv_params
from acq.layers.operations import batch_statistics, normalise
from acq.samples.conditions import Conditions, heat_map
from common.resampling import convolve_doubled

LabelForm = Literal["product", "norm"]
CenterForm = Literal["window", "heat_map", "latent", "none"]
_EPSILON = 1e-5
# PyTorch's, which published generators start with. He's rule by the fan-out, right for
# classifiers, would drive the last layer to the ends of its range.
_INIT = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Generator(nn.Module):
    """Samples from conditions.

    Attributes:
      image_size: height and width, a multiple of 4.
      channels: of the image.
      classes: labels there are.
      width: channels of the hidden layers; the last has half of them.
      label: 'product' or 'norm'.
      center: 'window', 'heat_map', 'latent' or 'none'.
      reach: of the window: centres lie in [-reach, reach]^2.
      sigma: of the heat map, in units of half the image.
      height: of the heat map.
      epsilon: of the normalisation in the hidden layers.
      spread: how far apart the scales and offsets of classes start, with 'norm'; GDFQ's
        start alike, at 1 and 0, and are told apart by their gradients alone.
      pixels: the teacher's normalisation, for toned images in [0, 1] before it; None
        for GDFQ's tanh, made to have mean 0 and variance 1 in each channel of a batch.
      axis_name: of the pmapped axis whose joined batch normalises; None for one device.
    """

    image_size: int
    channels: int
    classes: int
    width: int = 128
    label: LabelForm = "norm"
    center: CenterForm = "heat_map"
    reach: float | int = 1.0
    sigma: float | int = 0.3
    height: float | int = 3.0
    epsilon: float | int = 1e-5
    spread: float | int = 0.1
    pixels: Normalisation | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, conditions: Conditions) -> jax.Array:
        """Images (n, s, s, channels), as the teacher takes them."""
        if self.image_size % 4:
            raise ValueError(f"image_size must be a multiple of 4: {self.image_size}")
        latent, label, center, _ = conditions
        if self.label == "product":
            embedding = nn.Embed(
                self.classes,
                latent.shape[-1],
                embedding_init=initializers.normal(1.0),
                name="label",
            )
            latent = latent * embedding(label)
        if self.center == "latent":
            latent = jnp.concatenate([latent, center], axis=-1)
        size, width = self.image_size // 4, self.width
        margin = math.ceil(self.reach * size / 2) if self.center == "window" else 0
        wide = size + 2 * margin
        x = nn.Dense(wide * wide * width, name="dense")(latent)
        x = x.reshape(-1, wide, wide, width)
        if margin:
            x = window(x, center * (size / 2), size)
        x = self._lit(self._norm("norm0", x, label, _EPSILON), center)
        x = DoubledConv(width, 3, padding=1, name="conv1")(x)
        x = nn.leaky_relu(self._norm("norm1", x, label, self.epsilon), 0.2)
        x = self._lit(x, center)
        x = DoubledConv(width // 2, 3, padding=1, name="conv2")(x)
        x = nn.leaky_relu(self._norm("norm2", x, label, self.epsilon), 0.2)
        if self.pixels is None:
            x = PlainConv(self.channels, 3, padding=1, use_bias=True, name="conv3")(x)
            return self._standardise(jnp.tanh(x), _EPSILON)
        x = PlainConv(self.channels, 3, padding=1, name="conv3")(x)
        return self.pixels.normalise(nn.sigmoid(self._toned(x, conditions.latent)))

    def _lit(self, x: jax.Array, center: jax.Array) -> jax.Array:
        """Features with the heat map of the centre beside them, where there is one."""
        if self.center != "heat_map":
            return x
        lit = heat_map(center, x.shape[1], sigma=self.sigma, height=self.height)
        return jnp.concatenate([x, lit], axis=-1)

    def _toned(self, x: jax.Array, latent: jax.Array) -> jax.Array:
        """Images whose mean colour and contrast are the latent's first numbers' alone.

        How much they vary, and together, is learned. At first the standard deviation of
        each channel's mean is 1, in logits, and that of the contrast's logarithm 0.5.
        """
        channels = x.shape[-1]
        x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
        var = jnp.mean(jnp.square(x), axis=(1, 2, 3), keepdims=True)
        drawn = latent[:, : channels + 1]
        color = nn.Dense(channels, kernel_init=_unit, name="color")(drawn[:, :-1])
        contrast = nn.Dense(1, kernel_init=initializers.constant(0.5), name="contrast")(
            drawn[:, -1:]
        )
        gain = jnp.exp(contrast)[:, None, None]
        return x * jax.lax.rsqrt(var + _EPSILON) * gain + color[:, None, None]

    def _standardise(self, x: jax.Array, epsilon: float) -> jax.Array:
        mean, var = batch_statistics(x, self.axis_name)
        one = jnp.ones_like(mean)
        return normalise(x, mean, var, one, jnp.zeros_like(mean), epsilon)

    def _norm(
        self, name: str, x: jax.Array, label: jax.Array, epsilon: float
    ) -> jax.Array:
        """Normalisation by the batch, then a scale and offset, by class or for all."""
        x = self._standardise(x, epsilon)
        kinds = self.classes if self.label == "norm" else 1
        shape = (kinds, x.shape[-1])
        spread = self.spread if kinds > 1 else 0.0
        scale = self.param(f"{name}_scale", _around(1.0, spread), shape)
        offset = self.param(f"{name}_offset", _around(0.0, spread), shape)
        chosen = label if kinds > 1 else jnp.zeros_like(label)
        return x * scale[chosen][:, None, None] + offset[chosen][:, None, None]


def window(
    x: Float[Array, "n w w c"], moved: Float[Array, "n 2"], size: int
) -> Float[Array, "n s s c"]:
    """Returns features in which those of the middle lie by `moved` from the middle.

    By linear interpolation; beyond the margins there is 0.

    Args:
      x: of a square wider than `size` by a margin on each side.
      moved: (x, y), to the right and down, in features.
      size: of the square returned.
    """
    margin = (x.shape[1] - size) // 2
    place, source = jnp.arange(size) + margin, jnp.arange(x.shape[1])

    def weights(by: Float[Array, ""]) -> Float[Array, "s w"]:
        apart = jnp.abs((place - by)[:, None] - source[None])
        return jnp.maximum(0.0, 1.0 - apart)

    columns, rows = (jax.vmap(weights)(moved[:, axis]) for axis in (0, 1))
    return jnp.einsum("nij,njkc,nlk->nilc", rows, x, columns)


class PlainConv(Conv):
    """`Conv` that starts as PyTorch's does."""

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """The kernel, whatever a classifier's would start as."""
        return self.param("kernel", _INIT, shape)


class DoubledConv(PlainConv):
    """A 3x3 convolution, padded by 1, of features enlarged by nearest neighbours.

    The enlarged features are never made, see `common/resampling.py`: with gradients it
    takes 0.35 to 0.4 of the time of making and convolving them (CPU, 64 samples).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features (n, 2 h, 2 w, features)."""
        # No bias: the normalisation behind it would take it away again.
        kernel, _ = conv_params(self, x.shape[-1])
        return convolve_doubled(x, kernel)


def _unit(key, shape, dtype=jnp.float32):
    """Initialiser: the unit matrix."""
    del key
    return jnp.eye(*shape, dtype=dtype)


def _around(mean: float, spread: float):
    """Initialiser: normal around `mean`."""

    def init(key, shape, dtype=jnp.float32):
        return mean + spread * jax.random.normal(key, shape, dtype)

    return init
