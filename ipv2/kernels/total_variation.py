"""Total-variation denoising by Chambolle's dual projection."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_STEP = 0.25  # 1 / (2 dimensions): the largest step that converges


def total_variation(
    image: Float[Array, "*b h w"], weight: float, iterations: int = 30
) -> Float[Array, "*b h w"]:
    """Returns ``u`` near the minimum of ``TV(u) + |u - image|^2 / (2 weight)``.

    Chambolle, J. Math. Imaging Vis. 20, 89-97 (2004), in the form of scikit-image's
    `denoise_tv_chambolle`: with ``u = image + div p``,

        p <- (p + (weight-scaled step) grad u) / (1 + (step / weight) |grad u|)

    Gradients are forward differences, zero across the last row and column; TV is
    isotropic. The number of iterations is fixed, so the result is a differentiable
    function of the image (the loop is a scan: its gradient stores every iterate).

    Args:
        image: images in any unit.
        weight: in the image's unit, above 0. The noise's standard deviation about
            halves the noise.
        iterations: iterations of the dual; 30 are within 2 % of convergence at such
            weights.
    """
    if not weight > 0:
        raise ValueError(f"weight must be above 0 (the image's unit), got {weight}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    zero = jnp.zeros_like(image)

    def iterate(
        _: jax.Array, dual: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        down, right = dual
        smooth = image + _divergence(down, right)
        d, r = _gradient(smooth)
        squared = d * d + r * r
        # The gradient of sqrt at 0 is infinite, so flat pixels skip it.
        steep = squared > 0
        slope = jnp.where(steep, jnp.sqrt(jnp.where(steep, squared, 1.0)), 0.0)
        scale = 1.0 / (1.0 + (_STEP / weight) * slope)
        return (down + _STEP * d) * scale, (right + _STEP * r) * scale

    down, right = lax.fori_loop(0, iterations, iterate, (zero, zero))
    return image + _divergence(down, right)


def _gradient(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (
        jnp.diff(image, axis=-2, append=image[..., -1:, :]),
        jnp.diff(image, axis=-1, append=image[..., -1:]),
    )


def _divergence(down: jax.Array, right: jax.Array) -> jax.Array:
    """Applies minus the adjoint of `_gradient`; last row and column must be zero."""
    return jnp.diff(down, axis=-2, prepend=jnp.zeros_like(down[..., :1, :])) + jnp.diff(
        right, axis=-1, prepend=jnp.zeros_like(right[..., :1])
    )
