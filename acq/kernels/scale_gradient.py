"""The identity, with its gradient multiplied by a number.

    y = x,    dx = factor * g

Learned ranges need it: the gradient of a quantizer's step is a sum over all N values
that it quantizes, so that its size against the step's own grows as sqrt(N qmax), and
one learning rate cannot suit both it and the weights. LSQ (Esser et al., ICLR 2020,
arXiv 1902.08153, section 2.2) multiplies it by 1 / sqrt(N qmax).

Adam divides a constant factor out again, up to its epsilon and to rounding; the steps
of SGD, which is offered too, are in proportion to it.
"""

import functools

import jax
from jaxtyping import Array, Float


def scale_gradient(x: Float[Array, "*shape"], factor: float) -> Float[Array, "*shape"]:
    """`x` itself; what flows back through it is multiplied by `factor`.

    Args:
      x: Any array; its gradient keeps its dtype.
      factor: Static; 0 stops the gradient, except that infinities and NaN in it stay
        NaN.
    """
    return _scale_gradient(x, factor)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _scale_gradient(x: Array, factor: float) -> Array:
    return x


def _scale_gradient_fwd(x, factor):
    return x, None


def _scale_gradient_bwd(factor, _, g):
    return (g * factor,)


_scale_gradient.defvjp(_scale_gradient_fwd, _scale_gradient_bwd)
