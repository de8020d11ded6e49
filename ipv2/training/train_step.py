"""Training on pairs, on device: makes examples and takes steps on them.

`make_examples` takes whole low-dose and normal-dose slices in HU, with the neighbours
that the network needs. It makes training pairs of them, with fresh noise, and crops
patches. `make_train_step` takes one optimiser step on the patches. An example's random
numbers follow from its number in the stream (`draw`), so a run does not depend on the
number of devices. The two are compiled separately: networks do not depend on how pairs
are made.
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
    """The state that a step changes.

    Attributes:
      step: number of steps done, int32 scalar.
      params: parameters of the network, float32.
      collections: the network's other variables: `batch_stats`, or none.
      opt_state: state of the optimiser.
      ema: exponential moving average of the parameters; None if they are not averaged.
    """

    step: PyTree
    params: PyTree
    collections: PyTree
    opt_state: PyTree
    ema: PyTree = None

    @property
    def variables(self) -> PyTree:
        """The variables to evaluate and export; `params` is `ema` if there is one."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, **self.collections}


class Examples(NamedTuple):
    """The examples of one step on one device.

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
      variables: variables of the network: `params`, and `batch_stats` if it has them.
      optimizer: the optimiser.
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
    """Returns a key per example; it follows from seed and stream number alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(draw)


def training_stacks(
    rngs: Key[Array, "b"], shard: Any, params: PairParams
) -> tuple[jax.Array, ...]:
    """Returns inputs, targets and, if there are any, weights: `b h w c`, HU.

    Args:
      rngs: a key per example, split into one key per slice of its stack.
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
    """Returns a function that makes patches from slices on device, for pmap.

    Args:
      params: how a training pair is made.
      patch: height and width of a patch.
      patches_per_slice: patches cropped from each slice.
      seed: seed of the noise and of the patches.

    Returns:
      `examples(shard)`; the shard holds `lq`, `gt` (`b c h w`, HU), `spacing_mm`
      (`b 2`) and `draw` (`b`). Equal arguments give the same function.
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
    """Returns the pure training step, for pmap.

    Args:
      denoiser: the network and its loss.
      optimizer: the optimiser.
      accumulate: number of parts into which a device's patches are cut to save memory.
        Parts run one after the other; the step uses their mean gradient.
      ema_decay: decay of the averaged parameters, below 1; used if the state has them.

    Returns:
      `train_step(state, examples)`. Equal arguments give the same function, so several
      trainings in one process compile it once.
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
    """Returns ((mean loss, collections), gradient of the loss by the parameters).

    Args:
      denoiser: the network and its loss.
      state: the state whose parameters and collections are used.
      examples: examples of one device.
      parts: number of equal parts, which run one after the other; each part starts
        from the collections that the part before it returned.

    Raises:
      ValueError: The number of patches is not a multiple of `parts`.
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
    """Returns the moving average after a step; early averages decay faster."""
    if state.ema is None:
        return None
    step = state.step.astype(jnp.float32)
    decay_now = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, state.ema, 1 - decay_now)
