"""One training step of a float classifier with cross-entropy."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from acq.classifier import Normalisation
from common.devices import AXIS
from common.typing import Metrics, PyTree


class TeacherState(flax.struct.PyTreeNode):
    """State of a step.

    Attributes:
      params: The network's.
      batch_stats: Running statistics of its batch normalisation.
      opt_state: The optimiser's.
    """

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree

    @property
    def variables(self) -> PyTree:
        """Variables of the network."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: PyTree, optimizer: optax.GradientTransformation
) -> TeacherState:
    """Returns the state before the first step."""
    return TeacherState(
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
    )


@functools.cache
def make_train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    normalisation: Normalisation,
) -> Callable[[TeacherState, Any], tuple[TeacherState, Metrics]]:
    """Returns the pure step, to be pmapped.

    Args:
      network: Its batch statistics are computed over `AXIS`.
      optimizer: Updates the parameters.
      normalisation: Makes network inputs from images in [0, 1].

    Returns:
      `train_step(state, shard)`; the shard holds `image` (uint8 `b h w c`) and `label`
      (`b`). The same function for the same arguments.
    """

    def loss_of(params: PyTree, batch_stats: PyTree, x: Array, labels: Array) -> Any:
        (logits, _), changed = network.apply(
            {"params": params, "batch_stats": batch_stats},
            x,
            train=True,
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        right = jnp.argmax(logits, -1) == labels
        return jnp.mean(loss), (changed["batch_stats"], jnp.mean(right))

    def train_step(state: TeacherState, shard: Any) -> tuple[TeacherState, Metrics]:
        (loss, (batch_stats, right)), gradient = jax.value_and_grad(
            loss_of, has_aux=True
        )(
            state.params,
            state.batch_stats,
            normalisation.normalise(shard["image"] / 255.0),
            shard["label"],
        )
        # The batch statistics are already those of all devices.
        loss, right, gradient = jax.lax.pmean((loss, right, gradient), AXIS)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        state = TeacherState(
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, {"loss": loss, "accuracy": right}

    return train_step
