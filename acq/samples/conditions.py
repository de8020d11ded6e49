"""Conditions of a sample: a latent, a class, a centre of attention, and a shift.

The teacher sees the sample shifted, as training images often are.

Every draw depends only on the seed and on the sample's number in the run, so a run does
not depend on how many devices share it. In pairs, for the adversarial loss of pairs,
samples 2 i and 2 i + 1 share class and centre and differ in the latent.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key, UInt32


class Conditions(NamedTuple):
    """A batch of conditions.

    Attributes:
      latent: standard normal.
      label: the requested class.
      center: (x, y) in [-1, 1]^2, x to the right and y down.
      shift: (x, y) in pixels; moves the image before the teacher sees it.
    """

    latent: Float[Array, "n d"]
    label: Int32[Array, "n"]
    center: Float[Array, "n 2"]
    shift: Int32[Array, "n 2"]


def draw_conditions(
    rng: Key[Array, ""],
    draw: UInt32[Array, "n"],
    *,
    latent: int,
    classes: int,
    reach: float | int,
    paired: bool,
    shift: int = 0,
) -> Conditions:
    """Returns the conditions of the samples numbered `draw`.

    Args:
      rng: of the run.
      draw: the samples' numbers.
      latent: length of a latent.
      classes: labels are uniform over 0 to classes - 1.
      reach: centres are uniform over [-reach, reach]^2.
      paired: whether samples 2 i and 2 i + 1 share class and centre.
      shift: shifts are uniform over whole pixels from -shift to shift.
    """
    latent_rng, label_rng, center_rng = jax.random.split(rng, 3)
    # A separate key, so that shifts change no other draw.
    shift_rng = jax.random.fold_in(rng, 3)
    pair = draw // 2 if paired else draw

    def each(key: Key[Array, ""], number: UInt32[Array, "n"], make) -> jax.Array:
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(number)
        return jax.vmap(make)(keys)

    return Conditions(
        each(latent_rng, draw, lambda key: jax.random.normal(key, (latent,))),
        each(label_rng, pair, lambda key: jax.random.randint(key, (), 0, classes)),
        each(
            center_rng,
            pair,
            lambda key: jax.random.uniform(key, (2,), minval=-reach, maxval=reach),
        ),
        each(
            shift_rng,
            draw,
            lambda key: jax.random.randint(key, (2,), -shift, shift + 1),
        ),
    )


def heat_map(
    center: Float[Array, "n 2"], size: int, *, sigma: float | int, height: float | int
) -> Float[Array, "n size size 1"]:
    """Returns Gaussians around the centres.

        height * exp(-|p - center|^2 / (2 sigma^2))

    Pixel i lies at p = (2 i + 1) / size - 1, as for `kernels.attention`.

    Args:
      center: (x, y) in [-1, 1]^2.
      size: height and width of the maps.
      sigma: in units of the centre.
      height: of the peak.
    """
    position = (2 * jnp.arange(size) + 1) / size - 1
    squares = jnp.square(position[None, :, None] - center[:, None, :])
    x, y = squares[..., 0], squares[..., 1]
    squared = y[:, :, None] + x[:, None, :]
    return height * jnp.exp(-squared / (2 * sigma**2))[..., None]
