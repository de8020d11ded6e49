"""Shifts samples like the teacher's training images, with black moved in.

A CIFAR network is usually trained on random crops of images padded with black, and a
digit network on shifted images. Their running statistics are of such images. Whole
images have other statistics: in evaluation mode the first stage of a real ResNet-20 has
0.7 to 0.9 of the running variance on whole test images, and 0.94 to 1.04 of it on
padded crops. So samples are shifted before their statistics are computed, and stay
whole images.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def shift_images(
    images: Float[Array, "n h w c"], shift: Int[Array, "n 2"], black: tuple[float, ...]
) -> Float[Array, "n h w c"]:
    """Returns the images moved by whole pixels, with black moved in.

    The crop at (i, j) of an image padded by p is the image shifted by (p - i, p - j).

    Args:
      images: network inputs.
      shift: (x, y) of each image, to the right and down.
      black: one value per channel.
    """
    fill = jnp.asarray(black, images.dtype)

    def shift_one(image: jax.Array, by: jax.Array) -> jax.Array:
        height, width = image.shape[:2]
        rolled = jnp.roll(image, by[::-1], axis=(0, 1))
        inside = _inside(height, by[1])[:, None] & _inside(width, by[0])[None]
        return jnp.where(inside[..., None], rolled, fill[None, None])

    return jax.vmap(shift_one)(images, shift)


def shift_centers(
    center: Float[Array, "n 2"], shift: Int[Array, "n 2"], size: int
) -> Float[Array, "n 2"]:
    """Returns the centres, (x, y) in [-1, 1]^2, after a shift.

    Args:
      center: before the shift.
      shift: in pixels.
      size: side of the images in pixels, two units of the centre.
    """
    return center + shift * (2 / size)


def _inside(size: int, shift: Int[Array, ""]) -> Bool[Array, "s"]:
    """Returns which pixels along a side come from inside the image."""
    source = jnp.arange(size) - shift
    return (source >= 0) & (source < size)
