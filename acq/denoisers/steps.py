"""One optimiser step of the generator, and one of the student.

    generator:  w_statistics * BNS + w_center * |center(A) - c|^2 + w_pair * pair
                + w_consistency * (1 - cos)
    student:    w_output * output + w_hint * hint

The generator's terms are those of `acq.training.losses`, without a class. A is the
attention of the float network's last features. In the student's,

    output = mean((s - t)^2) / mean((t - x)^2)

s and t are the outputs of student and float network for the image x: the distance is
relative to what the network changes. The hint compares the inputs of convolutions.

Steps are pure. Each takes one device's share of a batch and averages over devices.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from acq.denoisers.bits import NetworkBits
from acq.denoisers.bounds import LAST_BOUND, growing_bound
from acq.denoisers.generator import Drawn, ImageGenerator, draw
from acq.denoisers.observation import observe
from acq.denoisers.rounding import apply_rounded
from acq.kernels.attention import attention_center
from acq.training import losses
from acq.training.step_parts import GeneratorLoss, GeneratorState, Learner
from common.devices import AXIS
from common.typing import Metrics, PyTree

_SMALL = 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSampling:
    """Draws what images are made of; see `generator.draw`."""

    seed: int
    latent: int
    reach: float | int
    paired: bool
    image_size: int
    channels: int

    def draw(self, numbers: jax.Array) -> Drawn:
        """Returns the draws of the samples with these numbers, uint32."""
        options = dataclasses.asdict(self)
        return draw(options.pop("seed"), numbers, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageStudentLoss:
    """Weights of the student's terms; a weight of 0 leaves a term out.

    Attributes:
      output_weight: of the outputs' distance.
      hint_weight: of that of the inputs of convolutions.
    """

    output_weight: float | int = 1.0
    hint_weight: float | int = 1.0


class ImageStudentState(flax.struct.PyTreeNode):
    """State of a student step.

    Attributes:
      step: steps done, int32 scalar.
      student: `params` and `ranges`, and their optimiser's state.
    """

    step: PyTree
    student: Learner


class ImageGeneratorParts(NamedTuple):
    """Parts of a generator step; all hashable.

    Attributes:
      generator: makes images.
      network: the float one, with statistics over all devices.
      last: path of its last convolution.
      loss: weights and forms of the terms; no class.
      sampling: draws.
      optimizer: updates the parameters.
      steps: of the whole phase.
      first_bound: of the network's features at step 0; see `bounds`.
    """

    generator: ImageGenerator
    network: nn.Module
    last: str
    loss: GeneratorLoss
    sampling: ImageSampling
    optimizer: optax.GradientTransformation
    steps: int
    first_bound: float | int


class ImageStudentParts(NamedTuple):
    """Parts of a student step; all hashable.

    Attributes:
      generator: makes images.
      network: the float one.
      bits: of the student's convolutions.
      loss: weights of the terms.
      sampling: draws.
      optimizer: updates parameters and ranges.
    """

    generator: ImageGenerator
    network: nn.Module
    bits: NetworkBits
    loss: ImageStudentLoss
    sampling: ImageSampling
    optimizer: optax.GradientTransformation


@functools.cache
def make_image_generator_step(
    parts: ImageGeneratorParts,
) -> Callable[[PyTree, GeneratorState, Any], tuple[GeneratorState, Metrics]]:
    """Returns `step(variables, state, shard)`, to be pmapped.

    The shard holds `draw`, uint32: the numbers of this device's samples.
    """

    def generator_step(
        variables: PyTree, state: GeneratorState, shard: Any
    ) -> tuple[GeneratorState, Metrics]:
        drawn = parts.sampling.draw(shard["draw"])
        bound = growing_bound(state.step, parts.steps, parts.first_bound)

        def loss_of(params: PyTree) -> Any:
            return image_terms(parts, params, variables, drawn, bound)

        (total, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state.generator.params
        )
        gradient, metrics = jax.lax.pmean(
            (gradient, {"generator_loss": total, **metrics}), AXIS
        )
        learner = _updated(state.generator, gradient, parts.optimizer)
        return GeneratorState(step=state.step + 1, generator=learner), metrics

    return generator_step


def image_terms(
    parts: ImageGeneratorParts,
    params: PyTree,
    variables: PyTree,
    drawn: Drawn,
    bound: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Returns the generator's loss and its terms for one device's draws.

    Args:
      parts: of the step.
      params: the generator's.
      variables: the float network's.
      drawn: what the images are made of.
      bound: of the float network's features; see `bounds`.
    """
    loss = parts.loss
    images: Any = parts.generator.apply({"params": params}, drawn)
    see = functools.partial(
        observe,
        parts.network,
        variables,
        images,
        last=parts.last,
        axis_name=AXIS,
        bound=bound,
    )
    view, terms, weights = see(), {}, {}
    if loss.statistics_weight:
        terms["statistics"] = losses.statistics_loss(
            view.statistics, variables["batch_stats"], loss.statistics_form
        )
        weights["statistics"] = loss.statistics_weight
    if loss.center_weight:
        achieved = attention_center(view.attention, loss.power)
        terms["center"] = losses.center_loss(achieved, drawn.conditions.center)
        weights["center"] = loss.center_weight
    if loss.pair_weight:
        terms["pair"] = losses.pair_loss(drawn.conditions.latent, images)
        weights["pair"] = loss.pair_weight
    if loss.consistency_weight:
        terms["consistency"] = losses.consistency_loss(
            view.attention, see(train=True).attention
        )
        weights["consistency"] = loss.consistency_weight
    total = sum(weights[name] * term for name, term in terms.items())
    return jnp.asarray(total), {f"generator_{k}": v for k, v in terms.items()}


@functools.cache
def make_image_student_step(
    parts: ImageStudentParts,
) -> Callable[[PyTree, ImageStudentState, Any], tuple[ImageStudentState, Metrics]]:
    """Returns `step(frozen, state, shard)`, to be pmapped.

    `frozen` holds `network`, the float network's variables, and `generator`, the
    generator's parameters. The shard is that of the generator's step.
    """

    def student_step(
        frozen: PyTree, state: ImageStudentState, shard: Any
    ) -> tuple[ImageStudentState, Metrics]:
        drawn = parts.sampling.draw(shard["draw"])
        images: Any = parts.generator.apply({"params": frozen["generator"]}, drawn)
        target = observe(
            parts.network,
            frozen["network"],
            images,
            last=parts.bits.names[-1],
            bound=LAST_BOUND,
        )

        def loss_of(trained: PyTree) -> Any:
            # Running statistics stay those of the float network.
            outputs, sown = apply_rounded(
                parts.network,
                {**frozen["network"], **trained},
                images,
                parts.bits,
                mutable=("inputs",),
                bound=LAST_BOUND,
            )
            output = output_distance(images, outputs, target.outputs)
            hint = losses.hint_loss(sown["inputs"], target.inputs, axis_name=AXIS)
            total = parts.loss.output_weight * output + parts.loss.hint_weight * hint
            return total, {
                "student_loss": total,
                "student_output": output,
                "student_hint": hint,
            }

        gradient, metrics = jax.grad(loss_of, has_aux=True)(state.student.params)
        gradient, metrics = jax.lax.pmean((gradient, metrics), AXIS)
        learner = _updated(state.student, gradient, parts.optimizer)
        return ImageStudentState(step=state.step + 1, student=learner), metrics

    return student_step


def output_distance(
    images: jax.Array, outputs: jax.Array, wanted: jax.Array
) -> jax.Array:
    """Returns the term `output` of one device's images, see above."""
    middle = images.shape[-1] // 2
    changed = jnp.mean(jnp.square(wanted - images[..., middle : middle + 1]))
    changed = jax.lax.stop_gradient(jax.lax.pmean(changed, AXIS)) + _SMALL
    return jnp.mean(jnp.square(outputs - wanted)) / changed


def _updated(
    learner: Learner, gradient: PyTree, optimizer: optax.GradientTransformation
) -> Learner:
    updates, opt_state = optimizer.update(gradient, learner.opt_state, learner.params)
    return Learner(
        params=optax.apply_updates(learner.params, updates), opt_state=opt_state
    )
