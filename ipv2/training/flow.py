"""Flow matching: the path from a noisy image to a clean one, its loss, its samplers.

A flow model is a velocity field v(x, t). Integrating dx/dt = v from the low-dose image
at t = 0 gives the denoised image at t = 1. The model learns on the straight lines
between pairs (x0, x1) (Liu et al., Rectified Flow, ICLR 2023; Lipman et al., Flow
Matching, ICLR 2023; image to image as in FFM, arXiv 2510.07492):

    x_t = (1 - t) x0 + t x1          v(x_t, t) approximates x1 - x0

The network sees x_t and t but not x0. So v becomes the mean of x1 - x0 over all pairs
whose line passes through x_t, and the learned field bends where lines cross. The number
of steps that a sampler needs must be measured; it cannot be derived.

Everything is in network units and float32; time is dimensionless, in [0, 1].
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from ipv2.training.losses import mean_squared_error

# (x, `n`-vector of times) -> velocity of x's shape.
Velocity: TypeAlias = Callable[[Array, Array], Array]
Step: TypeAlias = Callable[[Velocity, Array, Array, float], Array]


def draw_times(rngs: Key[Array, "n"]) -> Float[Array, "n"]:
    """Returns one time t ~ U[0, 1) per key; it depends on its own key alone."""
    return jax.vmap(jax.random.uniform)(rngs)


def interpolate(
    x0: Float[Array, "n *shape"], x1: Float[Array, "n *shape2"], time: Float[Array, "n"]
) -> Float[Array, "n *shape"]:
    """x_t = (1 - t) x0 + t x1, in float32: exactly x0 at t = 0 and x1 at t = 1.

    Raises:
      ValueError: The shapes differ, or `time` does not hold one number per image.
    """
    if x0.shape != x1.shape:
        raise ValueError(
            f"x0 and x1 must have one shape, got {x0.shape} and {x1.shape}"
        )
    if time.shape != x0.shape[:1]:
        raise ValueError(
            f"time must hold one number per image, {x0.shape[:1]}, got {time.shape}"
        )
    t = time.astype(jnp.float32).reshape(-1, *[1] * (x0.ndim - 1))
    return (1 - t) * x0.astype(jnp.float32) + t * x1.astype(jnp.float32)


def velocity_loss(
    velocity: Velocity,
    x0: Float[Array, "n *shape"],
    x1: Float[Array, "n *shape2"],
    time: Float[Array, "n"],
    weight: Float[Array, "n *shape3"] | None = None,
) -> Float[Array, ""]:
    """mean((v(x_t, t) - (x1 - x0))^2), over every pixel of every image.

    Its gradient reaches the parameters that `velocity` closes over.

    Args:
      velocity: The field, a function of images and times.
      x0: Low-dose images, network units.
      x1: Their normal-dose partners.
      time: One number in [0, 1] per image; `draw_times` gives the published U(0, 1).
      weight: How much each pixel counts, 0 ... 1; None where all count alike.

    Raises:
      ValueError: The shapes of x0, x1 and the velocity differ.
    """
    x = interpolate(x0, x1, time)
    straight = x1.astype(jnp.float32) - x0.astype(jnp.float32)
    return mean_squared_error(velocity(x, time), straight, weight)


def euler_step(velocity: Velocity, x: Array, time: Array, step: float) -> Array:
    """X + h v(x, t): order 1, one call. Exact where v is constant along the path."""
    return x + step * velocity(x, time)


def midpoint_step(velocity: Velocity, x: Array, time: Array, step: float) -> Array:
    """X + h v(x + h/2 v(x, t), t + h/2): order 2, two calls."""
    half = step / 2
    return x + step * velocity(x + half * velocity(x, time), time + half)


def heun_step(velocity: Velocity, x: Array, time: Array, step: float) -> Array:
    """X + h/2 (v(x, t) + v(x + h v(x, t), t + h)): order 2, two calls."""
    first = velocity(x, time)
    second = velocity(x + step * first, time + step)
    return x + (step / 2) * (first + second)


SAMPLERS: Mapping[str, Step] = MappingProxyType(
    {"euler": euler_step, "heun": heun_step, "midpoint": midpoint_step}
)


def integrate(
    velocity: Velocity,
    x0: Float[Array, "n *shape"],
    *,
    sampler: str = "euler",
    steps: int = 50,
) -> Float[Array, "n *shape"]:
    """Integrates the field from t = 0 to t = 1 and returns the images at the end.

    The defaults are those of FFM: Euler in 50 steps of 0.02. Where the field is smooth,
    the error shrinks as steps^-1 with Euler and as steps^-2 with Heun and midpoint,
    which call the network twice per step. The steps are one `lax.scan`, so the compiled
    code holds the network once (Heun and midpoint: twice), however many steps there
    are. `steps` is static: another number compiles anew.

    Args:
      velocity: The field, traceable; takes float32 images and times.
      x0: Start images, network units.
      sampler: 'euler', 'heun' or 'midpoint'.
      steps: Number of steps of equal length 1 / steps, at least 1.

    Returns:
      float32 images, network units.

    Raises:
      ValueError: The sampler is unknown, or steps is below 1.
    """
    if sampler not in SAMPLERS:
        raise ValueError(
            f"no sampler is called {sampler!r}; accepted: {sorted(SAMPLERS)}"
        )
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    advance = SAMPLERS[sampler]

    def body(x: Array, index: Array) -> tuple[Array, None]:
        time = jnp.full(x.shape[:1], index / steps, jnp.float32)
        return advance(velocity, x, time, 1 / steps), None

    x, _ = lax.scan(body, x0.astype(jnp.float32), jnp.arange(steps, dtype=jnp.float32))
    return x
