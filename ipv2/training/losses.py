"""Training losses in network units, one number per batch.

They average over every pixel of every image. A `weight` of 0 ... 1 per pixel multiplies
the difference first, so that pixels of weight 0 do not count. Shapes must agree
exactly: a target of shape (n, h, w) with a prediction of (n, h, w, 1) would broadcast
to (n, h, w, w), and training would silently use nonsense.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# In network units, HU / 1000.
_ONE_HU = 1e-3

Weight = Float[Array, "*weight_shape"] | None


def mean_squared_error(
    prediction: Float[Array, "*shape"],
    target: Float[Array, "*target_shape"],
    weight: Weight = None,
) -> Float[Array, ""]:
    """mean((prediction - target)^2), in float32.

    The gradient is 2 (prediction - target) / size, zero where they agree.

    Raises:
      ValueError: If the shapes differ in any way.
    """
    return jnp.mean(jnp.square(_difference(prediction, target, weight)))


def mean_absolute_error(
    prediction: Float[Array, "*shape"],
    target: Float[Array, "*target_shape"],
    weight: Weight = None,
) -> Float[Array, ""]:
    """mean(|prediction - target|), in float32.

    The gradient is sign(prediction - target) / size, zero where they agree.

    Raises:
      ValueError: If the shapes differ in any way.
    """
    difference = _difference(prediction, target, weight)
    # JAX's gradient of |0| is 1, which would push pixels that already agree.
    return jnp.mean(difference * lax.stop_gradient(jnp.sign(difference)))


def mean_log_squared_error(
    prediction: Float[Array, "n *shape"],
    target: Float[Array, "n *target_shape"],
    weight: Weight = None,
) -> Float[Array, ""]:
    """Mean over images of ln(mean((prediction - target)^2) + (1 HU)^2).

    Up to its factor, -10 / ln(10), and an offset the mean PSNR. An image of little
    noise counts as much as one of much; under `mean_squared_error` an image at 2 % of
    the dose outweighs one at 25 % by 49 to 3 (1 / dose - 1). Images are stored to 1 HU.

    Raises:
      ValueError: If the shapes differ in any way.
    """
    squared = jnp.square(_difference(prediction, target, weight))
    error = jnp.mean(squared, axis=tuple(range(1, squared.ndim)))
    return jnp.mean(jnp.log(error + _ONE_HU**2))


Loss = Callable[[Array, Array, Weight], Array]
LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "mse": mean_squared_error,
        "l1": mean_absolute_error,
        "log_mse": mean_log_squared_error,
    }
)


def create_loss(name: str) -> Loss:
    """Returns the loss called `name`: 'mse', 'l1' or 'log_mse'.

    Raises:
      ValueError: No loss has that name.
    """
    if name not in LOSSES:
        raise ValueError(f"no loss is called {name!r}; accepted: {sorted(LOSSES)}")
    return LOSSES[name]


def _difference(prediction: Array, target: Array, weight: Weight) -> Array:
    """What is wrong with each pixel that counts, in proportion to what it counts."""
    for name, other in (("target", target), ("weight", weight)):
        if other is not None and prediction.shape != other.shape:
            raise ValueError(
                f"prediction and {name} must have one shape, got "
                f"{prediction.shape} and {other.shape}"
            )
    difference = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return difference if weight is None else difference * weight
