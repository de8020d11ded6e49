"""Trains a denoiser on purified pairs: the step, the state, the run.

Every step takes whole low-dose and normal-dose slices in HU. On device it purifies
them, with noise drawn anew, crops patches, and takes one optimiser step. An example's
randomness comes from its number in the stream (`draw`), so a run does not depend on
how many devices share it.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Key, UInt32

from common.devices import AXIS
from common.typing import Metrics, PyTree
from ipv2.losses import mse
from ipv2.models.blocks import hu_to_unit
from ipv2.patches import random_patches
from ipv2.purification import PurifyParams, purify


class TrainState(flax.struct.PyTreeNode):
    """What a step changes.

    Attributes:
      step: steps done, int32 scalar.
      params: the network's, float32.
      opt_state: the optimiser's.
    """

    step: jax.Array
    params: PyTree
    opt_state: optax.OptState


def create_state(
    rng: Key[Array, ""], model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the state before the first step.

    Args:
      rng: of the initial weights.
      model: takes and gives `b h w 1`.
      optimizer: that will make the steps.
    """
    # The weights of a convolutional network do not depend on the size it is shown.
    params = jax.jit(model.init)(rng, jnp.zeros((1, 64, 64, 1)))["params"]
    return TrainState(
        step=jnp.int32(0), params=params, opt_state=optimizer.init(params)
    )


def example_rngs(seed: int, draw: UInt32[Array, "b"]) -> Key[Array, "b"]:
    """Returns a key per example, from its number in the stream alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(draw)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    purification: PurifyParams,
    *,
    patch: int,
    patches_per_slice: int,
    seed: int,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Returns the pure step, to be pmapped.

    Args:
      model: the denoiser, in network units.
      optimizer: makes the steps.
      purification: how a training pair is composed.
      patch: height and width of a patch.
      patches_per_slice: patches cropped from each slice.
      seed: of the noise and the patches.

    Returns:
      `train_step(state, shard)`; the shard holds `lq`, `gt` (`b h w`, HU), `spacing_mm`
      (`b 2`) and `draw` (`b`).
    """

    def train_step(state: TrainState, shard: Any) -> tuple[TrainState, Metrics]:
        rngs = jax.vmap(jax.random.split)(example_rngs(seed, shard["draw"]))
        noise_rngs, patch_rngs = rngs[:, 0], rngs[:, 1]
        lq, gt = (shard[key].astype(jnp.float32) for key in ("lq", "gt"))
        pair = purify(noise_rngs, lq, gt, shard["spacing_mm"], purification)
        slices = hu_to_unit(jnp.stack([pair.lq_bar, gt], axis=-1))
        patches = random_patches(
            patch_rngs, slices, size=patch, count=patches_per_slice
        )

        def loss_of(params: PyTree) -> jax.Array:
            denoised = model.apply({"params": params}, patches[..., :1])
            return mse(denoised, patches[..., 1:])

        loss, gradient = jax.value_and_grad(loss_of)(state.params)
        loss, gradient = jax.lax.pmean((loss, gradient), AXIS)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        metrics = {"loss": loss, "gradient_norm": optax.global_norm(gradient)}
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return state, metrics

    return train_step
