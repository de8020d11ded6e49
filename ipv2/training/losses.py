"""Training losses in network units, one number per batch.

Both average over every pixel of every image. Shapes must agree exactly: a target of
shape (n, h, w) with a prediction of (n, h, w, 1) would broadcast to (n, h, w, w), and
training would silently use nonsense.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def mean_squared_error(
    prediction: Float[Array, "*shape"], target: Float[Array, "*target_shape"]
) -> Float[Array, ""]:
    """mean((prediction - target)^2), in float32.

    The gradient is 2 (prediction - target) / size, zero where they agree.

    Raises:
      ValueError: If the shapes differ in any way.
    """
    return jnp.mean(jnp.square(_difference(prediction, target)))


def mean_absolute_error(
    prediction: Float[Array, "*shape"], target: Float[Array, "*target_shape"]
) -> Float[Array, ""]:
    """mean(|prediction - target|), in float32.

    The gradient is sign(prediction - target) / size, zero where they agree.

    Raises:
      ValueError: If the shapes differ in any way.
    """
    difference = _difference(prediction, target)
    # JAX's gradient of |0| is 1, which would push pixels that already agree.
    return jnp.mean(difference * lax.stop_gradient(jnp.sign(difference)))


LOSSES: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {"mse": mean_squared_error, "l1": mean_absolute_error}
)


def create_loss(name: str) -> Callable[[Array, Array], Array]:
    """Returns the loss called `name`: 'mse' or 'l1'.

    Raises:
      ValueError: No loss has that name.
    """
    if name not in LOSSES:
        raise ValueError(f"no loss is called {name!r}; accepted: {sorted(LOSSES)}")
    return LOSSES[name]


def _difference(prediction: Array, target: Array) -> Array:
    if prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have one shape, got "
            f"{prediction.shape} and {target.shape}"
        )
    return prediction.astype(jnp.float32) - target.astype(jnp.float32)
