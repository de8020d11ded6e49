"""The low-dose recipe that the IPv2 authors published, for parity.

It is not physics: `photon_noise` is.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Real, UInt8

from ipv2.kernels import projection
from ipv2.kernels.photon_counts import sample_counts, slice_keys
from ipv2.kernels.photon_noise import SMALLEST, scan_geometry
from ipv2.kernels.reconstruction_filter import filter_response


def _min_max(image: Float32[Array, "h w"]) -> Float32[Array, "h w"]:
    """The image stretched to [0, 1]; a constant one becomes 0."""
    low = jnp.min(image)
    span = jnp.max(image) - low
    return (image - low) / jnp.where(span > 0, span, 1.0)


def _reference(
    geometry: projection.Geometry,
    response: Array,
    key: Array,
    image: Float32[Array, "h w"],
    photons: Array,
) -> UInt8[Array, "h w"]:
    circle = jnp.asarray(projection.inscribed_circle(geometry.shape))
    line = projection.project(geometry, jnp.where(circle, _min_max(image), 0.0)) / 500
    mean = photons * jnp.exp(-line)

    normal = jax.random.normal(key, (2, *line.shape))
    seen = sample_counts(normal[0], mean) + 0.05 * jnp.sqrt(mean) * normal[1]
    positive = seen > 0
    line = jnp.where(positive, -jnp.log(jnp.where(positive, seen, 1.0) / photons), 0.0)
    result = projection.backproject(geometry, 500 * line, response)
    result = jnp.where(circle, result * (math.pi / geometry.views), 0.0)
    return jnp.round(255 * _min_max(result)).astype(jnp.uint8)


@jax.jit
def _jit_reference(
    geometry: projection.Geometry,
    response: Array,
    keys: Array,
    images: Float32[Array, "b h w"],
    photons: Array,
) -> UInt8[Array, "b h w"]:
    return jax.lax.map(
        lambda one: _reference(geometry, response, one[0], one[1], photons),
        (keys, images),
    )


def simulate_reference_noise(
    rng: Array,
    image: Real[Array | np.ndarray, "..."],
    *,
    mas: float | int = 2.5,
    geometry: projection.Geometry | None = None,
) -> UInt8[Array, "..."]:
    """The low-dose recipe published with IPv2, its faults included, for parity.

    x = min-max of each image; p = radon(x) / 500 at as many views as the image has
    rows; I = (0.015 mAs + 0.1002) 200,000; lam = I exp(-p); n ~ Poisson(lam) +
    Normal(0, 0.05 sqrt(lam)); p' = -ln(n / I), 0 where n <= 0; FBP (Hann, linear
    interpolation) of 500 p', zero outside the inscribed circle, min-max, 8 bit.
    # Departs from IPv2: the noise is seeded, the logarithm is not taken of n <= 0, and
    # what lies outside the inscribed circle is not projected.

    Args:
      rng: one key, folded with each slice's position in the batch; or keys of shape *b.
      image: `*b n n` square grey images in any unit, at least 16 pixels.
      mas: the recipe's exposure; 2.5 is called 2 % there and is 13.8 % of the flux.
      geometry: from `scan_geometry`; None looks it up.

    Returns:
      `*b n n` images of 8 bits.

    Raises:
      ValueError: images that are not square or too small, keys that do not fit.
    """
    shape = np.shape(image)
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] < SMALLEST:
        raise ValueError(
            f"image has shape {shape}; the published recipe takes square images "
            f"(*b, n, n) of at least {SMALLEST} pixels."
        )
    size = shape[-1]
    if geometry is None:
        geometry = scan_geometry((size, size), None)
    response = filter_response("hann", geometry.padded, linear_interpolation=True)
    flat = jnp.asarray(image, jnp.float32).reshape(-1, size, size)
    photons = jnp.asarray((0.015 * mas + 0.1002) * 200 * 1000, jnp.float32)
    keys = slice_keys(rng, shape[:-2])
    return _jit_reference(geometry, jnp.asarray(response), keys, flat, photons).reshape(
        shape
    )
