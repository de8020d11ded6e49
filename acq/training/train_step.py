"""One optimiser step of the generator, and one of the student.

    generator:  w_class * CE(teacher(x), y) + w_statistics * BNS
                + w_center * |center(A) - c|^2
                + w_pair * pair + w_consistency * (1 - cos)
    student:    w_class * CE(student(x), y) + w_kl * T^2 KL(teacher || student)
                + w_hint * hint

x is the generator's image for the condition (z, y, c), and A is the teacher's attention
on x. All generator terms except pair may see x shifted like the teacher's training
images, with c moved along (`samples/shifts.py`). The student sees x unshifted. BNS, CE,
KL and their places in the two losses are GDFQ's (Xu et al., ECCV 2020). The terms
center, pair and consistency are ACQ's (arXiv 2301.07266). Their forms are ours, because
its abstract gives only their purpose. The hint and the shift are our additions.

Steps are pure. Each takes one device's share of a batch and averages over devices. The
teacher is frozen: it is a separate argument.
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

    As in GDFQ, the student learns from the images that the generator made before its
    own step. While the student waits, only its observed ranges change.

    Args:
      generator_parts: of the generator's step.
      student_parts: of the student's step.
      generator_learns: whether the generator also learns, or only makes images.
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
        student, student_metrics = _step_student(
            student_parts,
            generator_parts.teacher,
            teacher_variables,
            state,
            jax.lax.stop_gradient(images),
            conditions.label,
        )
        state = QuantizeState(step=state.step + 1, generator=generator, student=student)
        return state, {**metrics, **student_metrics}

    return quantize_step


def generator_terms(
    parts: GeneratorParts,
    params: PyTree,
    teacher_variables: PyTree,
    conditions: Conditions,
    step: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """Returns (loss, (images, terms)) for one device's conditions.

    Args:
      parts: of the step.
      params: the generator's.
      teacher_variables: `params` and `batch_stats`.
      conditions: of the images.
      step: steps done, for the ramp of the centre's weight.
    """
    loss = parts.loss
    images = _images(parts, params, conditions)
    teacher_images, center = images, conditions.center
    if parts.sampling.shift:
        teacher_images = shift_images(images, conditions.shift, parts.black)
        center = shift_centers(center, conditions.shift, images.shape[1])
    observe_images = functools.partial(
        observe,
        parts.teacher,
        teacher_variables,
        teacher_images,
        conditions.label,
        attention=loss.attention,
    )
    view = observe_images(train=False)
    needs_train = loss.statistics_mode == "train" or loss.consistency_weight > 0
    train_view = observe_images(train=True) if needs_train else view
    statistics_view = view if loss.statistics_mode == "eval" else train_view
    terms, weights = {}, {}
    if loss.class_weight:
        terms["class"] = losses.class_loss(view.logits, conditions.label)
        weights["class"] = loss.class_weight
    if loss.statistics_weight:
        terms["statistics"] = losses.statistics_loss(
            statistics_view.statistics,
            teacher_variables["batch_stats"],
            loss.statistics_form,
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
    """Returns the generator after a step, the images before it, and the loss terms."""

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
    """Returns the student after a step, and the loss terms."""
    for_hints = ["activations"] if parts.loss.hint_weight else []
    for_ranges = ["observed"] if parts.ranges.observe_steps else []
    (teacher_logits, _), teacher_sown = teacher.apply(
        teacher_variables, images, mutable=for_hints
    )
    statistics = teacher_variables["batch_stats"]

    def loss_of(trained: PyTree) -> Any:
        # The student is in evaluation mode, with the teacher's running statistics.
        variables = {**trained, "batch_stats": statistics}
        (logits, _), sown = parts.student.apply(
            variables, images, mutable=[*for_hints, *for_ranges]
        )
        total, metrics = _student_terms(
            parts.loss, logits, teacher_logits, sown, teacher_sown, label
        )
        return total, (metrics, sown.get("observed", {}))

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
    sown: PyTree,
    teacher_sown: PyTree,
    label: jax.Array,
) -> tuple[Any, Metrics]:
    """Returns the student's loss and its terms.

    Args:
      loss: weights of the terms.
      logits: the student's.
      teacher_logits: the teacher's, of the same images.
      sown: the student's collections; `activations` if the hint has a weight.
      teacher_sown: the teacher's.
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
            sown["activations"], teacher_sown["activations"], axis_name=AXIS
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
