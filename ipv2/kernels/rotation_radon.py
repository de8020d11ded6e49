"""Radon transform by image rotation, and its filtered inverse, as in scikit-image.

`skimage.transform.radon` rotates the image around pixel (n // 2, n // 2) with bilinear
interpolation and zeros beyond its border, and sums along columns; with circle=True the
sums still include pixels outside the inscribed circle. `iradon` filters each view and
interpolates it linearly at every pixel; with circle=True it sets pixels outside the
circle to zero. The views are n angles, evenly over [0, pi). This module is for parity;
`projection` is much faster and more exact.

At k pixels from the centre, both only need k cos(theta) and k sin(theta). Tables hold
their whole parts and fractions, computed in float64. So a position, the sum of two of
them, is exact to a float32 fraction for images of any size.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from ipv2.kernels.projection import inscribed_circle, uniform_angles


class Offset(NamedTuple):
    """Distances in pixels: ``whole + part``, 0 <= part < 1 up to float32's rounding."""

    whole: Any
    part: Any


class RotationTables(NamedTuple):
    """Tables for the views of n x n images.

    A pytree: pass it to jitted functions as an argument, so that it is not compiled in.

    Attributes:
      cosine: k cos(theta), (views, n), k = -(n // 2) ... in pixels.
      sine: k sin(theta), (views, n).
      minus_sine: -k sin(theta), (views, n).
      response: (padded // 2 + 1,) the filter at each frequency of a padded view.
    """

    cosine: Offset
    sine: Offset
    minus_sine: Offset
    response: Any


def _split(value: np.ndarray) -> Offset:
    whole = np.floor(value)
    return Offset(whole.astype(np.int32), (value - whole).astype(np.float32))


def _padded(size: int) -> int:
    """Returns a view's FFT length; `iradon` widens views to the image's diagonal."""
    return max(64, 2 ** math.ceil(math.log2(2 * math.ceil(math.sqrt(2) * size))))


def _hann_response(padded: int) -> np.ndarray:
    """Returns the ramp (Kak and Slaney 1988, eq. 3.61) times skimage's Hann window.

    The window ends at the last sample instead of at Nyquist, so its two halves differ.
    The real part of the inverse is kept, which is that of their mean.
    """
    lag = np.minimum(np.arange(padded), padded - np.arange(padded))
    odd = lag % 2 == 1
    ramp = np.where(odd, -1 / (math.pi * np.where(odd, lag, 1)) ** 2, 0.0)
    ramp[0] = 0.25
    response = 2 * np.fft.fft(ramp).real * np.fft.fftshift(np.hanning(padded))
    mirrored = np.roll(response[::-1], 1)
    return ((response + mirrored) / 2)[: padded // 2 + 1].astype(np.float32)


@functools.lru_cache(maxsize=4)
def create_rotation_tables(size: int) -> RotationTables:
    """Returns tables for `size` x `size` images and `size` views, as NumPy arrays."""
    angle = uniform_angles(size)[:, None]
    pixel = (np.arange(size) - size // 2)[None]
    return RotationTables(
        cosine=_split(pixel * np.cos(angle)),
        sine=_split(pixel * np.sin(angle)),
        minus_sine=_split(pixel * -np.sin(angle)),
        response=_hann_response(_padded(size)),
    )


def _add(down: Offset, across: Offset) -> Offset:
    """Returns (n, n) sums of one offset per row and one per column."""
    part = down.part[:, None] + across.part[None]
    carry = (part >= 1).astype(jnp.int32)
    return Offset(
        down.whole[:, None] + across.whole[None] + carry,
        part - carry.astype(jnp.float32),
    )


def rotate_and_sum(
    tables: RotationTables, image: Float32[Array, "n n"]
) -> Float32[Array, "v n"]:
    """Returns an image's sinogram, as `radon(image, circle=True).T`.

    p(theta, s) = sum_u image(u sin(theta) + s cos(theta), u cos(theta) - s sin(theta)),
    (column, row) from the centre, u and s whole.
    """
    size = image.shape[0]
    # Two pixels of zeros, so that values fade between the border and the first zero.
    flat = jnp.pad(image, 2).reshape(-1)
    width = size + 4

    def view(offsets: tuple[Offset, Offset, Offset]) -> Array:
        cosine, sine, minus_sine = offsets
        row, column = _add(cosine, minus_sine), _add(sine, cosine)
        first = jnp.clip(row.whole + size // 2, -2, size) + 2
        first = first * width + jnp.clip(column.whole + size // 2, -2, size) + 2

        def pixels(step: int) -> Array:
            return flat.at[first + step].get(mode="promise_in_bounds")

        above = pixels(0) * (1 - column.part) + pixels(1) * column.part
        below = pixels(width) * (1 - column.part) + pixels(width + 1) * column.part
        return jnp.sum(above * (1 - row.part) + below * row.part, axis=0)

    return jax.lax.map(view, (tables.cosine, tables.sine, tables.minus_sine))


def filter_views(
    tables: RotationTables, sinogram: Float32[Array, "v n"]
) -> Float32[Array, "v m"]:
    """Returns the views after the Hann filter at s = -(n // 2) ... n // 2 + 1."""
    size = sinogram.shape[1]
    padded = 2 * (tables.response.shape[0] - 1)
    spectrum = jnp.fft.rfft(jnp.pad(sinogram, ((0, 0), (0, padded - size))))
    view = jnp.fft.irfft(spectrum * tables.response[None], padded)
    return view[:, : 2 * (size // 2) + 2]


def smear_back(
    tables: RotationTables, sinogram: Float32[Array, "v n"]
) -> Float32[Array, "n n"]:
    """Returns the image `iradon(sinogram.T, filter_name='hann', circle=True)`."""
    views, size = sinogram.shape
    last = 2 * (size // 2)

    def add_view(image: Array, one: tuple[Array, Offset, Offset]) -> tuple[Array, None]:
        view, cosine, minus_sine = one
        place = _add(minus_sine, cosine)
        first = jnp.clip(place.whole + size // 2, 0, last)
        low = view.at[first].get(mode="promise_in_bounds")
        high = view.at[first + 1].get(mode="promise_in_bounds")
        return image + (low + place.part * (high - low)), None

    image, _ = jax.lax.scan(
        add_view,
        jnp.zeros((size, size), jnp.float32),
        (filter_views(tables, sinogram), tables.cosine, tables.minus_sine),
    )
    circle = jnp.asarray(inscribed_circle((size, size)))
    return jnp.where(circle, image * (math.pi / (2 * views)), 0.0)
