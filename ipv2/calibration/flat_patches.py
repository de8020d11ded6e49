"""Finds flat patches of soft tissue in HU images, whose variation is noise.

A patch is flat if the image, smoothed over a few pixels, hardly changes across it. This
choice uses only frequencies that the smoothing keeps. They are far below those at which
the noise is measured, so the choice does not favour patches with little noise.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ipv2.kernels import projection, smoothing

# Side of a patch in pixels: 26 mm at 0.8 mm; frequencies are 1/32 cycles apart.
SIZE = 32
_STRIDE = 8
# Least distance of patches of one slice: they overlap by a quarter at most.
_APART = 16
_SMOOTHING = 4.0
# Fat to muscle and contrast-filled blood; the lung's vessels would count as noise.
_LOWEST_HU, _HIGHEST_HU = -200.0, 200.0
# Largest slope of the smoothed image in HU per pixel: shading within an organ, plus the
# noise that the smoothing leaves, as a share of the patch's noise.
_SLOPE_HU, _SLOPE_NOISE = 3.0, 0.08


class FlatPatches(NamedTuple):
    """Patches and their places.

    Attributes:
      pixels: HU.
      index: slice of each patch.
      centre: (row, column) of pixel (16, 16) of each patch.
    """

    pixels: Float[np.ndarray, "k 32 32"]
    index: np.ndarray
    centre: np.ndarray


@jax.jit
def _flatness(image_hu: Float[Array, "b h w"]) -> Float[Array, "b r c"]:
    """Returns the steepest over the allowed slope at each place; inf without tissue."""
    smooth = smoothing.gaussian(image_hu, _SMOOTHING)
    row, column = jnp.gradient(smooth, axis=(-2, -1))
    slope = jnp.sqrt(row**2 + column**2)
    rough = jnp.square(image_hu - smooth)

    def windows(image: Array, start: float, reduce: Callable) -> Array:
        return lax.reduce_window(
            image, start, reduce, (1, SIZE, SIZE), (1, _STRIDE, _STRIDE), "VALID"
        )

    steepest = windows(slope, -jnp.inf, lax.max)
    low, high = windows(smooth, jnp.inf, lax.min), windows(smooth, -jnp.inf, lax.max)
    tissue = (low > _LOWEST_HU) & (high < _HIGHEST_HU)
    noise = jnp.sqrt(windows(rough, 0.0, lax.add) / SIZE**2)
    noise = jnp.where(tissue, noise, jnp.nan)
    noise = jnp.nanquantile(noise, 0.1, axis=(-2, -1), keepdims=True)
    flatness = steepest / (_SLOPE_HU + _SLOPE_NOISE * noise)
    return jnp.where(tissue, flatness, jnp.inf)


def _apart(centre: np.ndarray, flatness: np.ndarray, most: int) -> list[int]:
    """Returns indices of the flattest places that keep the least distance."""
    chosen: list[int] = []
    for k in np.argsort(flatness, kind="stable"):
        if flatness[k] >= 1 or len(chosen) == most:
            break
        distance = np.abs(centre[chosen] - centre[k]).max(axis=-1)
        if np.all(distance >= _APART):
            chosen.append(int(k))
    return chosen


def flat_patches(
    image_hu: Float[np.ndarray, "b h w"], *, most: int = 24
) -> FlatPatches:
    """Returns the flattest soft-tissue patches of each slice in the field of view.

    Args:
      image_hu: HU, finite.
      most: largest number of patches per slice.

    Returns:
      The patches; empty if no place is flat.
    """
    b, h, w = image_hu.shape
    flatness = np.asarray(_flatness(jnp.asarray(image_hu, jnp.float32)))
    start = np.mgrid[: flatness.shape[1], : flatness.shape[2]].reshape(2, -1).T
    start = start * _STRIDE
    corner = np.array([[0, 0], [0, SIZE - 1], [SIZE - 1, 0], [SIZE - 1, SIZE - 1]])
    corners = start[:, None] + corner
    inside = np.ones(len(start), bool)
    if h == w:
        circle = projection.inscribed_circle((h, w))
        inside = circle[corners[..., 0], corners[..., 1]].all(axis=1)
    pixels, index, centre = [], [], []
    for i in range(b):
        value = np.where(inside, flatness[i].reshape(-1), np.inf)
        for k in _apart(start, value, most):
            row, column = start[k]
            pixels.append(image_hu[i, row : row + SIZE, column : column + SIZE])
            index.append(i)
            centre.append(start[k] + SIZE // 2)
    return FlatPatches(
        np.asarray(pixels, np.float32).reshape(-1, SIZE, SIZE),
        np.asarray(index, int),
        np.asarray(centre, int).reshape(-1, 2),
    )
