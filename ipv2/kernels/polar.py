"""Magnitude and phase of a spectrum, with gradients that are finite everywhere.

    m = sqrt(re^2 + im^2)          p = atan2(im, re), in [-pi, pi], and 0 where m = 0

Gradients, for the outputs' gradients gm and gp:

    d_re = gm re / m - gp im / max(m, floor)^2
    d_im = gm im / m + gp re / max(m, floor)^2

both zero where m = 0. `jax.grad` of the equations would divide 0 by 0 there, and a
constant image has such a spectrum everywhere except at its mean. The floor is needed
because an FFT leaves rounding errors instead of zeros: their phase is meaningless, and
their true gradient 1 / m would be millions of times that of the image.

A negative zero in `im` counts as zero, because its sign depends on the FFT's code: a
negative mean has the phase +pi, never -pi.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def magnitude_and_phase(
    re: Float[Array, "*shape"], im: Float[Array, "*shape"], floor: float
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Returns the polar form of the numbers re + i im, in their dtype.

    Args:
      re: Real parts.
      im: Imaginary parts.
      floor: Magnitude below which the phase's gradient is damped by (m / floor)^2; the
        size of the rounding errors of a zero. Static, above 0.

    Returns:
      Magnitudes, and phases in radians.
    """
    return _polar(re, im)


def _polar(re, im):
    # Not `im + 0.0`, which XLA simplifies away.
    im = jnp.where(im == 0, 0.0, im)
    return jnp.sqrt(jnp.square(re) + jnp.square(im)), jnp.arctan2(im, re)


def _magnitude_and_phase_fwd(re, im, floor):
    if not floor > 0:
        raise ValueError(f"floor must be above 0, got {floor}")
    magnitude, phase = _polar(re, im)
    return (magnitude, phase), (re, im, magnitude)


def _magnitude_and_phase_bwd(floor, saved, gradients):
    re, im, magnitude = saved
    gm, gp = gradients
    along = gm / jnp.where(magnitude > 0, magnitude, 1.0)
    across = gp / jnp.square(jnp.maximum(magnitude, floor))
    return along * re - across * im, along * im + across * re


magnitude_and_phase.defvjp(_magnitude_and_phase_fwd, _magnitude_and_phase_bwd)
