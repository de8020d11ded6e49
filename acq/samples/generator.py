"""The generator of samples: GDFQ's, and with ACQ's position condition.

    dense layer to `width` channels at a quarter of the image's size
    twice: enlarge by nearest neighbours, 3x3 convolution, leaky ReLU 0.2
    3x3 convolution to the image's channels, then pixels

GDFQ (Xu et al., ECCV 2020) normalises by the batch everywhere, with an epsilon of 0.8
after the two enlarging convolutions. The label is an embedding that multiplies the
latent ('product', the CIFAR form), or a scale and offset in every normalisation
('norm', the ImageNet form). Its pixels are a tanh, normalised by the batch, so
saturation costs nothing. At the learning rate of our recipes such pixels end in two
grey levels, and every class gets one colour.

If the teacher's normalisation is given, pixels are a sigmoid instead. Brightness,
colour and contrast then depend only on the latent. So black and white are as rare as
the teacher's statistics require, and only the shape can show a class.

ACQ adds the centre of attention (arXiv 2301.07266; its abstract does not give the
form). Here it is the position of a window on larger first features, so that the content
moves with it; or a Gaussian heat map beside the features at up to half the image's
size; or it is joined to the latent.

The first dense layer has flax's initialisation, with 3 times the variance of PyTorch's.
The normalisation after it makes both equal except for how fast Adam rotates them.

Hidden layers always normalise by the batch, also when they make samples for the
student. So there are no running statistics, and a sample depends on its batch.
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
# PyTorch's initialisation, as in published generators. He's rule with the fan-out suits
# classifiers, but would drive the last layer to the ends of its range.
_INIT = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Generator(nn.Module):
    """Samples from conditions.

    Attributes:
      image_size: height and width, a multiple of 4.
      channels: of the image.
      classes: number of labels.
      width: channels of the hidden layers; the last has half of them.
      label: 'product' or 'norm'.
      center: 'window', 'heat_map', 'latent' or 'none'.
      reach: for the window: centres lie in [-reach, reach]^2.
      sigma: of the heat map, in units of half the image.
      height: of the heat map.
      epsilon: of the normalisation in the hidden layers.
      spread: sd of the initial scales and offsets of classes, with 'norm'. GDFQ's start
        equal, at 1 and 0, and only their gradients make them differ.
      pixels: the teacher's normalisation, for sigmoid images in [0, 1] before it; None
        for GDFQ's tanh, with mean 0 and variance 1 in each channel of a batch.
      axis_name: pmapped axis whose joined batch normalises; None for one device.
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
        x = self._with_heat_map(self._norm("norm0", x, label, _EPSILON), center)
        x = DoubledConv(width, 3, padding=1, name="conv1")(x)
        x = nn.leaky_relu(self._norm("norm1", x, label, self.epsilon), 0.2)
        x = self._with_heat_map(x, center)
        x = DoubledConv(width // 2, 3, padding=1, name="conv2")(x)
        x = nn.leaky_relu(self._norm("norm2", x, label, self.epsilon), 0.2)
        if self.pixels is None:
            x = PlainConv(self.channels, 3, padding=1, use_bias=True, name="conv3")(x)
            return self._standardise(jnp.tanh(x), _EPSILON)
        x = PlainConv(self.channels, 3, padding=1, name="conv3")(x)
        return self.pixels.normalise(nn.sigmoid(self._toned(x, conditions.latent)))

    def _with_heat_map(self, x: jax.Array, center: jax.Array) -> jax.Array:
        """Returns the features, with the heat map as a channel if `center` says so."""
        if self.center != "heat_map":
            return x
        heat = heat_map(center, x.shape[1], sigma=self.sigma, height=self.height)
        return jnp.concatenate([x, heat], axis=-1)

    def _toned(self, x: jax.Array, latent: jax.Array) -> jax.Array:
        """Returns logits of pixels with mean colour and contrast set by the latent.

        The latent's first numbers set them. The generator learns how much they vary. At
        first the sd of each channel's mean is 1, in logits, and that of the contrast's
        logarithm is 0.5.
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
        """Normalises by the batch, then applies a scale and offset, by class or not."""
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
    """Returns a window of the features, with its content moved by `moved`.

    Uses linear interpolation, and 0 beyond the margins.

    Args:
      x: features of a square that is larger than `size` by a margin on each side.
      moved: (x, y), to the right and down, in features.
      size: side of the window.
    """
    margin = (x.shape[1] - size) // 2
    position, source = jnp.arange(size) + margin, jnp.arange(x.shape[1])

    def weights(by: Float[Array, ""]) -> Float[Array, "s w"]:
        distance = jnp.abs((position - by)[:, None] - source[None])
        return jnp.maximum(0.0, 1.0 - distance)

    columns, rows = (jax.vmap(weights)(moved[:, axis]) for axis in (0, 1))
    return jnp.einsum("nij,njkc,nlk->nilc", rows, x, columns)


class PlainConv(Conv):
    """`Conv` with PyTorch's initialisation."""

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """Returns the kernel; ignores `init`, which is for classifiers."""
        return self.param("kernel", _INIT, shape)


class DoubledConv(PlainConv):
    """A 3x3 convolution, padded by 1, of features enlarged by nearest neighbours.

    It never makes the enlarged features, see `common/resampling.py`. With gradients it
    takes 0.35 to 0.4 of the time of making and convolving them (CPU, 64 samples).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features (n, 2 h, 2 w, features)."""
        # No bias: the normalisation after it would remove it.
        kernel, _ = conv_params(self, x.shape[-1])
        return convolve_doubled(x, kernel)


def _unit(key, shape, dtype=jnp.float32):
    """Initialises with the unit matrix."""
    del key
    return jnp.eye(*shape, dtype=dtype)


def _around(mean: float, spread: float):
    """Returns an initialiser: normal around `mean`."""

    def init(key, shape, dtype=jnp.float32):
        return mean + spread * jax.random.normal(key, shape, dtype)

    return init
