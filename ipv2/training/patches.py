"""Training patches, cropped and flipped on device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def random_patches(
    rngs: Key[Array, "b"], images: Float[Array, "b h w c"], *, size: int, count: int
) -> Float[Array, "n s s c"]:
    """Returns patches at random places, each flipped along each axis at random.

    Each axis is flipped with probability 1/2. Places are uniform over all that fit. The
    channels of one slice are cropped and flipped together, so an input and its label,
    stacked as channels, stay aligned.

    Args:
      rngs: a key per slice; a slice's patches depend on its own key alone.
      images: slices, at least `size` in height and width.
      size: height and width of a patch; static.
      count: patches per slice; static.

    Returns:
      b*count patches; those of one slice are consecutive.

    Raises:
      ValueError: A slice is smaller than a patch.
    """
    _, height, width, channels = images.shape
    if min(height, width) < size:
        raise ValueError(
            f"slices are {height} x {width}, a patch is {size} x {size}: it must fit"
        )

    def crop(rng: Key[Array, ""], image: Float[Array, "h w c"]) -> jax.Array:
        row_rng, column_rng, flip_rng = jax.random.split(rng, 3)
        row = jax.random.randint(row_rng, (), 0, height - size + 1)
        column = jax.random.randint(column_rng, (), 0, width - size + 1)
        patch = jax.lax.dynamic_slice(image, (row, column, 0), (size, size, channels))
        flip = jax.random.bernoulli(flip_rng, shape=(2,))
        patch = jnp.where(flip[0], patch[::-1], patch)
        return jnp.where(flip[1], patch[:, ::-1], patch)

    def of_slice(rng: Key[Array, ""], image: Float[Array, "h w c"]) -> jax.Array:
        return jax.vmap(crop, in_axes=(0, None))(jax.random.split(rng, count), image)

    patches = jax.vmap(of_slice)(rngs, images)
    return patches.reshape(-1, size, size, channels)
