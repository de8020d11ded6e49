"""The low-dose recipe that the IPv2 authors published, for parity.

It is not physical; `photon_noise` is. It has three steps, each a function:

    p = line_integrals(x)        radon of the stretched image, over 500
    n = draw_counts(I exp(-p))   Poisson + normal
    N(x) = reconstruct(n)        filtered backprojection, stretched again, 8 bit
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Real, UInt8

from ipv2.kernels.photon_counts import sample_counts, slice_keys
from ipv2.kernels.photon_noise import SMALLEST
from ipv2.kernels.rotation_radon import (
    RotationTables,
    create_rotation_tables,
    rotate_and_sum,
    smear_back,
)
from ipv2.kernels.slice_loop import slice_by_slice

# The recipe divides line integrals by this number instead of using an attenuation.
_SCALE = 500


def unattenuated_counts(mas: float | int) -> float:
    """Returns the counts of an unattenuated ray, ``(0.015 mAs + 0.1002) 200,000``."""
    return (0.015 * mas + 0.1002) * 200 * 1000


def line_integrals(
    tables: RotationTables, image: Float32[Array, "n n"]
) -> Float32[Array, "v n"]:
    """Returns line integrals of a square grey image, (views, bins).

    ``p = radon((x - min x) / (max x - min x)) / 500``, where x is the whole square: the
    sums of some views include pixels outside the inscribed circle.
    """
    return rotate_and_sum(tables, _min_max(image)) / _SCALE


def draw_counts(key: Array, mean: Float32[Array, "v n"]) -> Float32[Array, "v n"]:
    """Draws counts of rays: ``Poisson(mean) + Normal(0, 0.05 sqrt(mean))``."""
    normal = jax.random.normal(key, (2, *mean.shape))
    return sample_counts(normal[0], mean) + 0.05 * jnp.sqrt(mean) * normal[1]


def reconstruct(
    tables: RotationTables, counts: Float32[Array, "v n"], photons: Array
) -> UInt8[Array, "n n"]:
    """Reconstructs the 8-bit image of counts.

    ``y = fbp(500 p')``, ``p' = -ln(counts / photons)``, 0 where counts <= 0, zero
    outside the inscribed circle; then ``255 (y - min y) / (max y - min y)``, truncated.
    # Departs from IPv2: the logarithm is not taken of counts <= 0. No result differs.
    """
    positive = counts > 0
    ratio = jnp.where(positive, counts, photons) / photons
    result = smear_back(tables, -_SCALE * jnp.log(ratio))
    return (255 * _min_max(result)).astype(jnp.uint8)


def _min_max(image: Float32[Array, "h w"]) -> Float32[Array, "h w"]:
    """Stretches the image to [0, 1]; a constant image becomes 0."""
    low, high = jnp.min(image), jnp.max(image)
    span = jnp.where(high > low, high - low, 1.0)
    # XLA may multiply by 1 / span, so the maximum may be below 1, and truncation would
    # give 254.
    return jnp.where((image == high) & (high > low), 1.0, (image - low) / span)


def _reference(
    tables: RotationTables, unattenuated: Array, key: Array, image: Array
) -> UInt8[Array, "n n"]:
    mean = unattenuated * jnp.exp(-line_integrals(tables, image))
    return reconstruct(tables, draw_counts(key, mean), unattenuated)


@jax.jit
def _jit_reference(
    tables: RotationTables,
    unattenuated: Array,
    keys: Array,
    images: Float32[Array, "b n n"],
) -> UInt8[Array, "b n n"]:
    return slice_by_slice(
        lambda constants, *one: _reference(*constants, *one),
        (keys, images),
        (tables, unattenuated),
    )


def simulate_reference_noise(
    rng: Array,
    image: Real[Array | np.ndarray, "..."],
    *,
    mas: float | int = 2.5,
    tables: RotationTables | None = None,
) -> UInt8[Array, "..."]:
    """Applies the low-dose recipe published with IPv2, with its faults, for parity.

    x = min-max of each image; p = radon(x) / 500 at as many views as the image has
    rows; I = (0.015 mAs + 0.1002) 200,000; n ~ Poisson(I exp(-p)) +
    Normal(0, 0.05 sqrt(I exp(-p))); p' = -ln(n / I), 0 where n <= 0; FBP (Hann, linear
    interpolation) of 500 p', zero outside the inscribed circle, min-max, truncated to
    8 bits. Projection and reconstruction are scikit-image's (`rotation_radon`).

    With the draws of NumPy's legacy generator, seven images equal the results of the
    published scripts except for 1 to 7 of 65,536 pixels, which are one grey level off:
    float32 and float64 differ by up to 4e-4 levels, and truncation cuts between them.
    Here JAX makes the draws, so images agree in distribution.

    These faults are kept (besides the differences to `photon_noise`): every image is
    stretched between its own extremes, twice, so grey levels are not those of the
    input. If the body reaches outside the inscribed circle, the views that meet it are
    brighter than the circle explains, the circle's rim is reconstructed too bright, and
    the second stretch darkens everything else: by 70 grey levels on average for
    ellipses that reach outside, by 4 for ellipses inside.
    # Departs from IPv2: the noise is seeded; an image of one level is 0, not 0 / 0.

    Time on one CPU core: 0.9 s per image of 256 x 256, eight times that at 512 x 512.

    Args:
      rng: one key, folded with each slice's position in the batch; or keys of shape *b.
      image: `*b n n` square grey images in any unit, at least 16 pixels.
      mas: exposure of the recipe, which calls 2.5 a dose of 2 %; it is 13.8 % of the
        flux.
      tables: tables of `create_rotation_tables`; None looks them up.

    Returns:
      `*b n n` images of 8 bits.

    Raises:
      ValueError: Images are not square or too small, or keys do not fit.
    """
    shape = np.shape(image)
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] < SMALLEST:
        raise ValueError(
            f"image has shape {shape}; the published recipe takes square images "
            f"(*b, n, n) of at least {SMALLEST} pixels."
        )
    size = shape[-1]
    flat = jnp.asarray(image, jnp.float32).reshape(-1, size, size)
    return _jit_reference(
        tables or create_rotation_tables(size),
        jnp.asarray(unattenuated_counts(mas), jnp.float32),
        slice_keys(rng, shape[:-2]),
        flat,
    ).reshape(shape)
