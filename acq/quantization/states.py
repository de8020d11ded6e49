"""Generator and student before their first step, and the student after its last."""

import jax
import jax.numpy as jnp

from acq.classifier import Classifier
from acq.quantization.parts import generator_parts, student_parts
from acq.quantization.settings import QuantizationSettings
from acq.quantization.student_layers import statistics_ranges
from acq.training.step_parts import (
    GeneratorParts,
    GeneratorState,
    QuantizeState,
    create_learner,
)
from common.typing import PyTree


def generator_state(
    settings: QuantizationSettings, teacher: Classifier
) -> GeneratorState:
    """Returns the state before the generator's first step alone."""
    parts = generator_parts(settings, teacher, alone=True)
    params = _initial_generator(settings, parts)
    return GeneratorState(
        step=jnp.int32(0), generator=create_learner(params, parts.optimizer)
    )


def quantize_state(
    settings: QuantizationSettings,
    teacher: Classifier,
    generator_params: PyTree | None = None,
) -> QuantizeState:
    """Returns the state before the student's first step.

    Args:
      settings: the settings of the quantization.
      teacher: the classifier whose weights the student starts with.
      generator_params: the generator's parameters after its steps alone; None for
        untrained ones, if only shapes matter.
    """
    of_generator = generator_parts(settings, teacher, alone=False)
    of_student = student_parts(settings, teacher)
    if generator_params is None:
        generator_params = _initial_generator(settings, of_generator)
    ranges = statistics_ranges(settings, teacher)
    if settings.quantizer.range_source == "observed":
        # Not known before the first batch. A range used too early would show as NaN.
        ranges = jax.tree.map(lambda end: jnp.full_like(end, jnp.nan), ranges)
    trained = {"params": teacher.variables["params"], "ranges": ranges}
    return QuantizeState(
        step=jnp.int32(0),
        generator=create_learner(generator_params, of_generator.optimizer),
        student=create_learner(trained, of_student.optimizer),
    )


def student_variables(teacher: Classifier, state: QuantizeState) -> PyTree:
    """Returns the student's variables; its running statistics are the teacher's."""
    return {
        **state.student.params,
        "batch_stats": teacher.variables["batch_stats"],
    }


def _initial_generator(settings: QuantizationSettings, parts: GeneratorParts) -> PyTree:
    conditions = parts.sampling.draw(jnp.arange(2, dtype=jnp.uint32))
    init = jax.jit(parts.generator.clone(axis_name=None).init)
    # "rbg" compiles several times faster than the default, with as many layers.
    return init(jax.random.key(settings.seed, impl="rbg"), conditions)["params"]
