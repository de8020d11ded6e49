"""Samples as the teacher saw its training images: shifted, with black moved in.

A CIFAR network is usually trained on random crops of images padded with black, digits
on shifted ones, and its running statistics are of those. Whole images have others: in
evaluation mode a real ResNet-20 sees 0.7 to 0.9 of the running variance in its first
stage on whole test images, and 0.94 to 1.04 of it on padded crops. Samples that are to
be whole images are therefore shifted before their statistics are taken.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def shift_images(
    images: Float[Array, "n h w c"], shift: Int[Array, "n 2"], black: tuple[float, ...]
) -> Float[Array, "n h w c"]:
    """Returns the images moved by whole pixels, black where nothing is left.

    The crop of an image padded by p whose corner lies at (i, j) is the image shifted by
    (p - i, p - j).

    Args:
      images: as the teacher takes them.
      shift: (x, y) of each image, to the right and down.
      black: one value a channel.
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
    """Returns where centres, (x, y) in [-1, 1]^2, lie after a shift.

    Args:
      center: before it.
      shift: in pixels of images of `size` by `size`.
      size: two units of the centre.
    """
    return center + shift * (2 / size)


def _inside(size: int, shift: Int[Array, ""]) -> Bool[Array, "s"]:
    """Which of the pixels along a side come from within the image."""
    source = jnp.arange(size) - shift
    return (source >= 0) & (source < size)
