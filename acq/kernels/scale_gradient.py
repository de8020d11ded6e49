"""The identity, with its gradient multiplied by a number.

    y = x,    dx = factor * g

Learned ranges need it. The gradient of a quantizer's step is a sum over all N values
that it quantizes. So its size relative to the step grows as sqrt(N qmax), and no
learning rate suits both the step and the weights. LSQ (Esser et al., ICLR 2020, arXiv
1902.08153, section 2.2) multiplies the gradient by 1 / sqrt(N qmax).

With Adam a constant factor cancels, up to its epsilon and to rounding. The steps of SGD
are proportional to it.
"""

import functools

import jax
from jaxtyping import Array, Float


def scale_gradient(x: Float[Array, "*shape"], factor: float) -> Float[Array, "*shape"]:
    """Returns `x`; its gradient is multiplied by `factor`.

    Args:
      x: Any array; its gradient keeps its dtype.
      factor: Static; 0 stops the gradient, but infinities and NaN in it give NaN.
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
