"""Gaussian and median filters; edge pixels pad the image beyond its border."""

import math
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def gaussian(image: Float[Array, "*b h w"], sigma_px: float) -> Float[Array, "*b h w"]:
    """Convolves the image with a Gaussian of `sigma_px` pixels, cut off at 4 sigma.

    Weights sum to 1. The filter is linear, so its gradient is the transposed filter.
    """
    if not sigma_px > 0:
        raise ValueError(f"sigma_px must be above 0 pixels, got {sigma_px}")
    radius = math.ceil(4 * sigma_px)
    offset = np.arange(-radius, radius + 1)
    weight = np.exp(-0.5 * (offset / sigma_px) ** 2)
    weight = (weight / weight.sum()).astype(np.float32)
    for axis in (-2, -1):
        shifted = _shifted(image, axis, radius)
        terms = [float(w) * part for w, part in zip(weight, shifted, strict=True)]
        image = reduce(jnp.add, terms)
    return image


def median(image: Float[Array, "*b h w"], size: int) -> Float[Array, "*b h w"]:
    """Returns the median of the `size` x `size` pixels around each pixel, `size` odd.

    The gradient goes to the median pixel; equal pixels share it, as in minimum and
    maximum.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and at least 1 (3 or 5), got {size}")
    radius = size // 2
    pixels = [
        pixel
        for rows in _shifted(image, -2, radius)
        for pixel in _shifted(rows, -1, radius)
    ]
    # Forgetful selection: neither the least nor the greatest of n / 2 + 2 values can be
    # the median of n, so drop both and add the next value, until one is left.
    count = len(pixels) // 2 + 2
    kept, waiting = pixels[:count], pixels[count:]
    while len(kept) > 2:
        kept = _without_extremes(kept)
        if waiting:
            kept.append(waiting.pop())
    return kept[0]


def _without_extremes(values: list[jax.Array]) -> list[jax.Array]:
    """Removes the elementwise minimum and maximum of the values."""
    values = list(values)
    last = len(values) - 1
    for i in range(last):
        values[i], values[i + 1] = _exchange(values[i], values[i + 1])
    for i in range(last - 1, 0, -1):
        values[i - 1], values[i] = _exchange(values[i - 1], values[i])
    return values[1:last]


def _exchange(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.minimum(a, b), jnp.maximum(a, b)


def _shifted(image: jax.Array, axis: int, radius: int) -> list[jax.Array]:
    """Returns the image shifted by -radius ... radius pixels along `axis`."""
    padding = [(0, 0)] * image.ndim
    padding[axis] = (radius, radius)
    padded = jnp.pad(image, padding, mode="edge")
    size = image.shape[axis]
    return [
        jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
        for i in range(2 * radius + 1)
    ]


def wide_gaussian(
    image: Float[Array, "*b h w"], sigma_px: float
) -> Float[Array, "*b h w"]:
    """The image convolved with a wide Gaussian, by FFT: the image repeats beyond it.

    Its cost does not depend on `sigma_px`, for which `gaussian` adds 8 terms a pixel.
    """
    if not sigma_px > 0:
        raise ValueError(f"sigma_px must be above 0 pixels, got {sigma_px}")
    h, w = image.shape[-2:]
    row, column = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    response = np.exp(-2 * (math.pi * sigma_px) ** 2 * (row**2 + column**2))
    response = response.astype(image.dtype).reshape(*[1] * (image.ndim - 2), h, -1)
    spectrum = jnp.fft.rfft2(image) * response
    return jnp.fft.irfft2(spectrum, (h, w))
