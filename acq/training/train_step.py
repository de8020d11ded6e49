"""One optimiser step of the generator, and one of the student, as the paper has them.

    generator:  w_class * CE(teacher(x), y) + w_statistics * BNS
                + w_center * |center(A) - c|^2
                + w_pair * pair + w_consistency * (1 - cos)
    student:    w_class * CE(student(x), y) + w_kl * T^2 KL(teacher || student)
                + w_hint * activations apart

x is the generator's image of the condition (z, y, c) and A the teacher's attention on
it. The generator's terms but pairs may see x shifted, with c moved along (`shifts`), as
the teacher's training images were; the student sees it whole. BNS, CE, KL and their
place in the two losses are GDFQ's (Xu et al., ECCV 2020); the terms of centre, pair and
consistency are ACQ's (arXiv 2301.07266), in forms of ours since its abstract gives only
their purpose; the hint and the shift are additions of ours.

Steps are pure, see one device's share of a batch, and take the means over devices
themselves. The teacher is frozen: it comes as an argument of its own.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from acq.kernels.attention import attention_center
from acq.samples.conditions import Conditions
from acq.samples.observation import observe
from acq.samples.shifts import shift_centers, shift_images
from acq.training import losses
from acq.training.ranges import followed_ranges
from acq.training.step_parts import (
    GeneratorParts,
    GeneratorState,
    Learner,
    QuantizeState,
    StudentLoss,
    StudentParts,
)
from common.devices import AXIS
from common.typing import Metrics, PyTree


@functools.cache
def make_generator_step(
    parts: GeneratorParts,
) -> Callable[[PyTree, GeneratorState, Any], tuple[GeneratorState, Metrics]]:
    """Returns `generator_step(teacher_variables, state, shard)`, to be pmapped.

    The shard holds `draw`, uint32: the numbers of this device's samples.
    """

    def generator_step(
        teacher_variables: PyTree, state: GeneratorState, shard: Any
    ) -> tuple[GeneratorState, Metrics]:
        conditions = parts.sampling.draw(shard["draw"])
        learner, _, metrics = _step_generator(
            parts, teacher_variables, state.generator, conditions, state.step
        )
        return GeneratorState(step=state.step + 1, generator=learner), metrics

    return generator_step


@functools.cache
def make_quantize_step(
    generator_parts: GeneratorParts,
    student_parts: StudentParts,
    *,
    generator_learns: bool,
) -> Callable[[PyTree, QuantizeState, Any], tuple[QuantizeState, Metrics]]:
    """Returns `quantize_step(teacher_variables, state, shard)`, to be pmapped.

    The student learns from the generator's images as they were before the generator's
    own step, as GDFQ does it; where it waits, it sees them and stays as it is, but for
    ranges that are observed.

    Args:
      generator_parts: of the generator's step.
      student_parts: of the student's.
      generator_learns: whether the generator goes on learning, or only makes images.
    """

    def quantize_step(
        teacher_variables: PyTree, state: QuantizeState, shard: Any
    ) -> tuple[QuantizeState, Metrics]:
        conditions = generator_parts.sampling.draw(shard["draw"])
        generator, metrics = state.generator, {}
        if generator_learns:
            generator, images, metrics = _step_generator(
                generator_parts, teacher_variables, generator, conditions, state.step
            )
        else:
            images = _images(generator_parts, generator.params, conditions)
        student, measured = _step_student(
            student_parts,
            generator_parts.teacher,
            teacher_variables,
            state,
            jax.lax.stop_gradient(images),
            conditions.label,
        )
        state = QuantizeState(step=state.step + 1, generator=generator, student=student)
        return state, {**metrics, **measured}

    return quantize_step


def generator_terms(
    parts: GeneratorParts,
    params: PyTree,
    teacher_variables: PyTree,
    conditions: Conditions,
    step: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """Returns (loss, (images, terms)) of one device's conditions.

    Args:
      parts: what the step is made of.
      params: the generator's.
      teacher_variables: `params` and `batch_stats`.
      conditions: of the images.
      step: steps done, for the ramp of the centre's weight.
    """
    loss = parts.loss
    images = _images(parts, params, conditions)
    shown, center = images, conditions.center
    if parts.sampling.shift:
        shown = shift_images(images, conditions.shift, parts.black)
        center = shift_centers(center, conditions.shift, images.shape[1])
    see = functools.partial(
        observe,
        parts.teacher,
        teacher_variables,
        shown,
        conditions.label,
        attention=loss.attention,
    )
    view = see(train=False)
    needs_train = loss.statistics_mode == "train" or loss.consistency_weight > 0
    train_view = see(train=True) if needs_train else view
    measured = view if loss.statistics_mode == "eval" else train_view
    terms, weights = {}, {}
    if loss.class_weight:
        terms["class"] = losses.class_loss(view.logits, conditions.label)
        weights["class"] = loss.class_weight
    if loss.statistics_weight:
        terms["statistics"] = losses.statistics_loss(
            measured.statistics, teacher_variables["batch_stats"], loss.statistics_form
        )
        weights["statistics"] = loss.statistics_weight
    if loss.center_weight:
        achieved = attention_center(view.attention, loss.power)
        terms["center"] = losses.center_loss(achieved, center)
        ramp = jnp.minimum(1.0, (step + 1) / max(loss.center_ramp, 1))
        weights["center"] = loss.center_weight * ramp
    if loss.pair_weight:
        terms["pair"] = losses.pair_loss(conditions.latent, images)
        weights["pair"] = loss.pair_weight
    if loss.consistency_weight:
        terms["consistency"] = losses.consistency_loss(
            view.attention, train_view.attention
        )
        weights["consistency"] = loss.consistency_weight
    total = sum(weights[name] * term for name, term in terms.items())
    recognised = jnp.mean(jnp.argmax(view.logits, axis=-1) == conditions.label)
    metrics = {f"generator_{name}": term for name, term in terms.items()}
    return jnp.asarray(total), (images, metrics | {"recognised": recognised})


def _images(parts: GeneratorParts, params: PyTree, conditions: Conditions) -> jax.Array:
    images: Any = parts.generator.apply({"params": params}, conditions)
    return images


def _step_generator(
    parts: GeneratorParts,
    teacher_variables: PyTree,
    learner: Learner,
    conditions: Conditions,
    step: jax.Array,
) -> tuple[Learner, jax.Array, Metrics]:
    """The generator after a step, the images before it, and the loss's terms."""

    def loss_of(params: PyTree) -> Any:
        return generator_terms(parts, params, teacher_variables, conditions, step)

    (total, (images, metrics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
        learner.params
    )
    gradient, metrics = jax.lax.pmean(
        (gradient, {"generator_loss": total, **metrics}), AXIS
    )
    return _updated(learner, gradient, parts.optimizer), images, metrics


def _step_student(
    parts: StudentParts,
    teacher: nn.Module,
    teacher_variables: PyTree,
    state: QuantizeState,
    images: jax.Array,
    label: jax.Array,
) -> tuple[Learner, Metrics]:
    """The student after a step, and the loss's terms."""
    seen = ["activations"] if parts.loss.hint_weight else []
    watched = ["observed"] if parts.ranges.observe_steps else []
    (teacher_logits, _), shown = teacher.apply(teacher_variables, images, mutable=seen)
    statistics = teacher_variables["batch_stats"]

    def loss_of(trained: PyTree) -> Any:
        # Running statistics stay the teacher's: the student is in evaluation mode.
        variables = {**trained, "batch_stats": statistics}
        (logits, _), changed = parts.student.apply(
            variables, images, mutable=[*seen, *watched]
        )
        total, metrics = _student_terms(
            parts.loss, logits, teacher_logits, changed, shown, label
        )
        return total, (metrics, changed.get("observed", {}))

    gradient, (metrics, observed) = jax.grad(loss_of, has_aux=True)(
        state.student.params
    )
    gradient, metrics = jax.lax.pmean((gradient, metrics), AXIS)
    learner = _updated(state.student, gradient, parts.optimizer)
    if parts.waits:
        learner = jax.tree.map(
            lambda before, after: jnp.where(state.step < parts.waits, before, after),
            state.student,
            learner,
        )
    ranges = followed_ranges(
        parts.ranges,
        state.student.params["ranges"],
        learner.params["ranges"],
        observed,
        state.step,
    )
    return learner.replace(params={**learner.params, "ranges": ranges}), metrics


def _student_terms(
    loss: StudentLoss,
    logits: jax.Array,
    teacher_logits: jax.Array,
    seen: PyTree,
    shown: PyTree,
    label: jax.Array,
) -> tuple[Any, Metrics]:
    """The student's loss and its terms.

    Args:
      loss: weights of the terms.
      logits: the student's.
      teacher_logits: of the same images.
      seen: the student's `activations`, where hints have a weight.
      shown: the teacher's.
      label: of the images.
    """
    terms, weights = {}, {}
    if loss.class_weight:
        terms["class"] = losses.class_loss(logits, label)
        weights["class"] = loss.class_weight
    if loss.kl_weight:
        terms["kl"] = losses.distillation_loss(logits, teacher_logits, loss.temperature)
        weights["kl"] = loss.kl_weight
    if loss.hint_weight:
        terms["hint"] = losses.hint_loss(
            seen["activations"], shown["activations"], axis_name=AXIS
        )
        weights["hint"] = loss.hint_weight
    total = sum(weights[name] * term for name, term in terms.items())
    same = jnp.argmax(logits, -1) == jnp.argmax(teacher_logits, -1)
    metrics = {f"student_{name}": term for name, term in terms.items()}
    return total, {
        **metrics,
        "student_loss": jnp.asarray(total),
        "agreement": 100 * jnp.mean(same),
    }


def _updated(
    learner: Learner, gradient: PyTree, optimizer: optax.GradientTransformation
) -> Learner:
    updates, opt_state = optimizer.update(gradient, learner.opt_state, learner.params)
    return Learner(
        params=optax.apply_updates(learner.params, updates), opt_state=opt_state
    )
