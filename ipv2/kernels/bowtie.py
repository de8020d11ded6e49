"""The bowtie filter: how many photons reach a ray at a distance from the isocentre."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32, Real


def bowtie_transmission(
    distance_mm: Real[Array, "..."], radius_mm: Any, mu_water_per_mm: Any
) -> Float32[Array, "..."]:
    """Returns the photons that pass a bowtie filter, over those of the central ray.

    A bowtie filter equalises the flux behind a round body (Boone, Med. Phys. 37(1),
    2010): with the filter, each ray through a water cylinder of radius R loses as much
    as the central one. A ray at distance r passes L(r) of water, so the filter lets
    through

        T(r) = exp(-mu (L(0) - L(r))),    L(r) = 2 sqrt(max(R^2 - r^2, 0))

    T is 1 in the centre, falls to exp(-2 mu R) at r = R, and stays there. One energy
    and no scatter, as in the rest of the model.

    Args:
      distance_mm: r, distance of the ray from the isocentre, mm, of either sign.
      radius_mm: R, at least 0; 0 is no filter, with T = 1.
      mu_water_per_mm: attenuation of water.
    """
    radius = jnp.asarray(radius_mm, jnp.float32)
    chord = 2 * jnp.sqrt(jnp.maximum(radius**2 - distance_mm**2, 0.0))
    passed = jnp.exp(-mu_water_per_mm * (2 * radius - chord))
    return jnp.where(radius > 0, passed, 1.0)
