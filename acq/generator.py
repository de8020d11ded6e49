"""The generator of samples: GDFQ's, and with ACQ's position condition.

    dense to `width` channels at a quarter of the image's size
    twice: enlarged by nearest neighbours, 3x3 convolution, leaky ReLU 0.2
    3x3 convolution to the image's channels, then pixels of them

GDFQ (Xu et al., ECCV 2020) normalises by the batch throughout, with an epsilon of 0.8
behind the two convolutions that enlarge. The label is an embedding that multiplies the
latent ('product', its CIFAR form) or a scale and offset in every normalisation ('norm',
its ImageNet form). Its pixels are tanh, normalised by the batch, so that saturation
costs nothing: at the rate of our recipes they end in two grey levels. With the
teacher's normalisation given they are a sigmoid's instead: images that a camera could
have taken, with black and white as rare as the teacher's statistics have them. ACQ adds
the centre of attention (arXiv 2301.07266; the form is not in its abstract): as a
Gaussian heat map beside the features at half the image's size, or joined to the latent.

Hidden layers normalise by the batch always, also when samples are made for the student,
so there are no running statistics and a sample depends on its batch.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Initializer

from acq.classifier import Normalisation
from acq.conditions import Conditions, heat_map
from acq.layer_operations import batch_statistics, normalise
from acq.layers import Conv, conv_params
from common.resampling import convolve_doubled

LabelForm = Literal["product", "norm"]
CenterForm = Literal["heat_map", "latent", "none"]
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
      center: 'heat_map', 'latent' or 'none'.
      sigma: of the heat map, in units of half the image.
      height: of the heat map.
      epsilon: of the normalisation in the hidden layers.
      pixels: the teacher's normalisation, for images in [0, 1] before it; None for
        tanh, made to have mean 0 and variance 1 in each channel of a batch (GDFQ's).
      axis_name: of the pmapped axis whose joined batch normalises; None for one device.
    """

    image_size: int
    channels: int
    classes: int
    width: int = 128
    label: LabelForm = "norm"
    center: CenterForm = "heat_map"
    sigma: float | int = 0.3
    height: float | int = 3.0
    epsilon: float | int = 1e-5
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
        x = nn.Dense(size * size * width, name="dense")(latent)
        x = x.reshape(-1, size, size, width)
        x = self._lit(self._norm("norm0", x, label, _EPSILON), center)
        x = DoubledConv(width, 3, padding=1, name="conv1")(x)
        x = nn.leaky_relu(self._norm("norm1", x, label, self.epsilon), 0.2)
        x = self._lit(x, center)
        x = DoubledConv(width // 2, 3, padding=1, name="conv2")(x)
        x = nn.leaky_relu(self._norm("norm2", x, label, self.epsilon), 0.2)
        x = PlainConv(self.channels, 3, padding=1, use_bias=True, name="conv3")(x)
        if self.pixels is None:
            return self._standardise(jnp.tanh(x), _EPSILON)
        return self.pixels.normalise(nn.sigmoid(x))

    def _lit(self, x: jax.Array, center: jax.Array) -> jax.Array:
        """Features with the heat map of the centre beside them, where there is one."""
        if self.center != "heat_map":
            return x
        lit = heat_map(center, x.shape[1], sigma=self.sigma, height=self.height)
        return jnp.concatenate([x, lit], axis=-1)

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
        spread = 0.1 if kinds > 1 else 0.0
        scale = self.param(f"{name}_scale", _around(1.0, spread), shape)
        offset = self.param(f"{name}_offset", _around(0.0, spread), shape)
        chosen = label if kinds > 1 else jnp.zeros_like(label)
        return x * scale[chosen][:, None, None] + offset[chosen][:, None, None]


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


def _around(mean: float, spread: float):
    """Initialiser: normal around `mean`."""

    def init(key, shape, dtype=jnp.float32):
        return mean + spread * jax.random.normal(key, shape, dtype)

    return init
