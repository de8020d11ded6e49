"""Training on purified pairs, on device: examples from slices, a step from examples.

`make_examples` takes whole low-dose and normal-dose slices in HU, with their neighbours
where the network wants them, makes pairs of them, with noise drawn anew, and crops
patches.
`make_train_step` takes one optimiser step on them. An example's randomness comes from
its number in the stream (`draw`), so a run does not depend on how many devices share
it. The two are compiled apart: networks know nothing of how pairs are composed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, UInt32

from common.devices import AXIS
from common.typing import Metrics, PyTree
from ipv2.models.blocks import hu_to_unit
from ipv2.training.denoiser import Denoiser
from ipv2.training.pairs import PairParams, training_pair
from ipv2.training.patches import random_patches


class TrainState(flax.struct.PyTreeNode):
    """What a step changes.

    Attributes:
      step: steps done, int32 scalar.
      params: the network's, float32.
      collections: what else the network keeps: `batch_stats`, or nothing.
      opt_state: the optimiser's.
      ema: exponential moving average of the parameters; None without one.
    """

    step: PyTree
    params: PyTree
    collections: PyTree
    opt_state: PyTree
    ema: PyTree = None

    @property
    def variables(self) -> PyTree:
        """What to evaluate and export: the averaged parameters where there are any."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, **self.collections}


class Examples(NamedTuple):
    """What a step learns from, on one device.

    Attributes:
      x: noisy patches, `n s s c` in network units.
      y: the same patches without noise.
      rngs: a key per patch.
      weight: how much each pixel counts, 0 ... 1; None where all count alike.
    """

    x: Float[Array, "n s s c"]
    y: Float[Array, "n s s c"]
    rngs: Key[Array, "n"]
    weight: Float[Array, "n s s c"] | None = None


def create_state(
    variables: PyTree, optimizer: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
    """Returns the state before the first step.

    Args:
      variables: the network's, `params` and what else it keeps.
      optimizer: makes the steps.
      ema: whether to average the parameters.
    """
    params = variables["params"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        collections={k: v for k, v in variables.items() if k != "params"},
        opt_state=optimizer.init(params),
        # A copy: the step donates its state, and a buffer can be donated once.
        ema=jax.tree.map(jnp.copy, params) if ema else None,
    )


def example_rngs(seed: int, draw: UInt32[Array, "b"]) -> Key[Array, "b"]:
    """Returns a key per example, from its number in the stream alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(draw)


def training_stacks(
    rngs: Key[Array, "b"], shard: Any, params: PairParams
) -> tuple[jax.Array, ...]:
    """Returns inputs, targets and, if there are any, weights: `b h w c`, HU.

    Args:
      rngs: a key per example; each slice of its stack gets a key of its own.
      shard: `lq` and `gt` (`b c h w`, HU), `spacing_mm` (`b 2`).
      params: how a training pair is made.
    """
    lq, gt = (shard[key].astype(jnp.float32) for key in ("lq", "gt"))
    channels, shape = lq.shape[1], lq.shape
    slice_rngs = jax.vmap(lambda rng: jax.random.split(rng, channels))(rngs)
    pair = training_pair(
        slice_rngs.reshape(-1),
        lq.reshape(-1, *shape[2:]),
        gt.reshape(-1, *shape[2:]),
        jnp.repeat(shard["spacing_mm"], channels, axis=0),
        params,
    )
    made = (image for image in pair if image is not None)
    return tuple(jnp.moveaxis(image.reshape(shape), 1, -1) for image in made)


@functools.cache
def make_examples(
    params: PairParams, *, patch: int, patches_per_slice: int, seed: int
) -> Callable[[Any], Examples]:
    """Returns what makes patches of slices on device, to be pmapped.

    Args:
      params: how a training pair is made.
      patch: height and width of a patch.
      patches_per_slice: patches cropped from each slice.
      seed: of the noise and the patches.

    Returns:
      `examples(shard)`; the shard holds `lq`, `gt` (`b c h w`, HU), `spacing_mm`
      (`b 2`) and `draw` (`b`). The same function for the same arguments.
    """

    def examples(shard: Any) -> Examples:
        rngs = jax.vmap(lambda rng: jax.random.split(rng, 3))(
            example_rngs(seed, shard["draw"])
        )
        x, y, *weight = training_stacks(rngs[:, 0], shard, params)
        stacks = [hu_to_unit(x), hu_to_unit(y), *weight]
        patches = random_patches(
            rngs[:, 1],
            jnp.concatenate(stacks, axis=-1),
            size=patch,
            count=patches_per_slice,
        )
        split = jax.vmap(lambda rng: jax.random.split(rng, patches_per_slice))
        x, y, *weight = jnp.split(patches, len(stacks), axis=-1)
        return Examples(x, y, split(rngs[:, 2]).reshape(-1), *weight)

    return examples


@functools.cache
def make_train_step(
    denoiser: Denoiser,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    ema_decay: float | int = 0.0,
) -> Callable[[TrainState, Examples], tuple[TrainState, Metrics]]:
    """Returns the pure step, to be pmapped.

    Args:
      denoiser: the network and its loss.
      optimizer: makes the steps.
      accumulate: into how many parts a device's patches are cut, one after the other,
        to keep memory low. Their mean gradient makes the step.
      ema_decay: of the averaged parameters, below 1; read where the state has some.

    Returns:
      `train_step(state, examples)`. The same function for the same arguments, so that
      several trainings in one process compile it once.
    """

    def train_step(state: TrainState, examples: Examples) -> tuple[TrainState, Metrics]:
        (value, collections), gradient = accumulated_gradient(
            denoiser, state, examples, accumulate
        )
        value, gradient, collections = jax.lax.pmean(
            (value, gradient, collections), AXIS
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
        state = TrainState(
            step=state.step + 1,
            params=params,
            collections=collections,
            opt_state=opt_state,
            ema=_averaged(state, params, ema_decay),
        )
        return state, metrics

    return train_step


def accumulated_gradient(
    denoiser: Denoiser,
    state: TrainState,
    examples: Examples,
    parts: int,
) -> tuple[tuple[jax.Array, PyTree], PyTree]:
    """Returns ((mean loss, collections), its gradient by the parameters).

    Args:
      denoiser: the network and its loss.
      state: parameters and collections are read.
      examples: of one device.
      parts: of equal size, one after the other; collections pass from part to part.

    Raises:
      ValueError: the patches cannot be shared out.
    """
    count = len(examples.x)
    if count % parts:
        raise ValueError(f"{count} patches cannot be cut into {parts} parts")

    def loss_of(params: PyTree, collections: PyTree, part: Examples) -> Any:
        value, changed = denoiser.train_loss({"params": params, **collections}, *part)
        return value, {**collections, **changed}

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    if parts == 1:
        return gradient_of(state.params, state.collections, examples)

    def add(carry: Any, part: Any) -> tuple[Any, None]:
        (total, collections), gradients = carry
        (value, collections), gradient = gradient_of(state.params, collections, part)
        gradients = jax.tree.map(jnp.add, gradients, gradient)
        return ((total + value, collections), gradients), None

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), examples)
    ((total, collections), gradients), _ = jax.lax.scan(
        add, ((jnp.float32(0), state.collections), zeros), cut
    )
    mean = jax.tree.map(lambda leaf: leaf / parts, gradients)
    return (total / parts, collections), mean


def _averaged(state: TrainState, params: PyTree, decay: float | int) -> PyTree:
    """The moving average after a step; young averages decay faster."""
    if state.ema is None:
        return None
    step = state.step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, state.ema, 1 - kept)
