"""Images without labels, in a network's unit, and the draws that they are made of.

`acq.samples.generator` makes an image of one class: its pixels are a sigmoid over the
range of the unit, for denoisers from air to dense bone, and mean and contrast follow
the latent. Here noise is added, because the images that a denoiser learned from are
noisy and a few convolutions of a latent are smooth:

    x = clip(low + (high - low) sigmoid(...) m + exp(a + b z) (k * n))

m is the background: 1 on one side of a drawn line and 0 on the other, where x is `low`,
which is air for denoisers. Much of a CT is air, where a sigmoid hardly comes. The
line's place has a learned mean and spread. n is white noise, drawn for each sample, and
k a learned kernel of norm 1, the texture. The level has a learned mean a and spread b,
and z is a number of the latent. Noise may leave the range, as that of CT goes below
air; like CT, images are then cut off at the ends of what files hold. The first
convolution's range ends there, so a student that saw more would learn to mend a cut
that its inputs have already.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt32

from acq.classifier import Normalisation
from acq.samples.conditions import Conditions, draw_conditions
from acq.samples.generator import CenterForm, Generator

# Of the texture.
_SIDE = 5
_FIRST_LEVEL = -2.5  # exp of it is 0.08: 80 HU
# Width of the background's edge, in half image sides.
_EDGE = 0.03


class Drawn(NamedTuple):
    """What a batch of images is made of.

    Attributes:
      conditions: latents and centres; one class.
      noise: white, standard normal.
    """

    conditions: Conditions
    noise: Float[Array, "n s s c"]


class ImageGenerator(nn.Module):
    """Images from draws.

    Attributes:
      image_size: height and width, a multiple of 4.
      channels: of the images.
      low: the least value of pixels without noise.
      high: the greatest value of pixels without noise.
      stored: the least and the greatest value of all pixels.
      width: channels of the first features.
      center: how it sees the wanted centre of attention.
      reach: for a window: centres lie in [-reach, reach]^2.
      axis_name: pmapped axis whose joined batch normalises; None for one device.
    """

    image_size: int
    channels: int
    low: float
    high: float
    stored: tuple[float, float]
    width: int = 32
    center: CenterForm = "heat_map"
    reach: float | int = 0.5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, drawn: Drawn) -> jax.Array:
        """Images (n, s, s, channels), in the network's unit."""
        spread = self.high - self.low
        pixels = Normalisation(
            mean=(-self.low / spread,) * self.channels,
            std=(1 / spread,) * self.channels,
        )
        images = Generator(
            image_size=self.image_size,
            channels=self.channels,
            classes=1,
            width=self.width,
            center=self.center,
            reach=self.reach,
            pixels=pixels,
            axis_name=self.axis_name,
            name="structure",
        )(drawn.conditions)
        level = self.param("level", nn.initializers.constant(_FIRST_LEVEL), ())
        varies = self.param("varies", nn.initializers.constant(0.5), ())
        texture = self.param("texture", _centred, (_SIDE, _SIDE))
        # The latent's first numbers are taken by colour and contrast.
        first = self.channels + 1
        drawn_numbers = drawn.conditions.latent[:, first : first + 4]
        z, x, y, place = jnp.moveaxis(drawn_numbers, 1, 0)
        images = self.low + (images - self.low) * self._foreground(x, y, place)
        amount = jnp.exp(level + varies * z)[:, None, None, None]
        return jnp.clip(images + amount * _textured(drawn.noise, texture), *self.stored)

    def _foreground(self, x: jax.Array, y: jax.Array, place: jax.Array) -> jax.Array:
        """Returns (n, s, s, 1): 1 on one side of a line, 0 on the other.

        Args:
          x: with `y` the direction across the line, of any length above 0.
          y: see `x`.
          place: where it lies, standard normal.
        """
        middle = self.param("line", nn.initializers.constant(0.3), ())
        varies = self.param("line_varies", nn.initializers.constant(0.7), ())
        at = (2 * jnp.arange(self.image_size) + 1) / self.image_size - 1
        length = jnp.sqrt(jnp.square(x) + jnp.square(y)) + 1e-6
        across_x, across_y = ((part / length)[:, None] * at[None, :] for part in (x, y))
        distance = across_y[:, :, None] + across_x[:, None, :]
        distance = distance + (middle + varies * place)[:, None, None]
        return nn.sigmoid(distance / _EDGE)[..., None]


def draw(
    seed: int,
    numbers: UInt32[Array, "n"],
    *,
    latent: int,
    reach: float | int,
    paired: bool,
    image_size: int,
    channels: int,
) -> Drawn:
    """Returns the draws of the samples with these numbers.

    Args:
      seed: of the run.
      numbers: of the samples; a draw depends on its number alone.
      latent: length of a latent, above `channels` + 4.
      reach: centres are uniform over [-reach, reach]^2.
      paired: whether samples 2 i and 2 i + 1 share their centre.
      image_size: side of the images.
      channels: of the images.
    """
    rng = jax.random.key(seed)
    conditions = draw_conditions(
        rng, numbers, latent=latent, classes=1, reach=reach, paired=paired
    )
    # Key 3 is that of shifts.
    of_noise = jax.random.fold_in(rng, 4)
    shape = (image_size, image_size, channels)
    noise = jax.vmap(
        lambda number: jax.random.normal(jax.random.fold_in(of_noise, number), shape)
    )(numbers)
    return Drawn(conditions, noise)


def _textured(noise: jax.Array, texture: jax.Array) -> jax.Array:
    """Returns noise of variance 1 with a texture, channel by channel."""
    kernel = texture / jnp.sqrt(jnp.sum(jnp.square(texture)) + 1e-12)
    n, height, width, channels = noise.shape
    planes = jnp.moveaxis(noise, -1, 1).reshape(-1, height, width, 1)
    made = lax.conv_general_dilated(
        planes,
        kernel[:, :, None, None],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jnp.moveaxis(made.reshape(n, channels, height, width), 1, -1)


def _centred(key, shape, dtype=jnp.float32):
    """Initialises with 1 in the middle: white noise."""
    del key
    middle = tuple(side // 2 for side in shape)
    return jnp.zeros(shape, dtype).at[middle].set(1)
