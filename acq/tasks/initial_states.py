"""Generator and student before their first step."""

import jax
import jax.numpy as jnp

from acq.classifier import Classifier
from acq.tasks import settings
from acq.tasks.baselines import statistics_ranges
from acq.training.step_parts import (
    GeneratorParts,
    GeneratorState,
    QuantizeState,
    create_learner,
)
from common.config import ConfigDict
from common.typing import PyTree


def generator_state(config: ConfigDict, parts: GeneratorParts) -> GeneratorState:
    """Returns the state before the generator's first step alone."""
    params = _initial_generator(config, parts)
    return GeneratorState(
        step=jnp.int32(0), generator=create_learner(params, parts.optimizer)
    )


def quantize_state(
    config: ConfigDict, teacher: Classifier, generator_params: PyTree | None = None
) -> QuantizeState:
    """Returns the state before the student's first step.

    Args:
      config: checked.
      teacher: whose weights the student starts with.
      generator_params: of the generator after its steps alone; None for untrained
        ones, where only shapes matter.
    """
    generator_parts = settings.generator_parts(config, teacher, alone=False)
    student_parts = settings.student_parts(config, teacher)
    if generator_params is None:
        generator_params = _initial_generator(config, generator_parts)
    ranges = statistics_ranges(config, teacher)
    if config.quantizer.range_source == "observed":
        # Not known before the first batch: NaN would show wherever one were used.
        ranges = jax.tree.map(lambda end: jnp.full_like(end, jnp.nan), ranges)
    trained = {"params": teacher.variables["params"], "ranges": ranges}
    return QuantizeState(
        step=jnp.int32(0),
        generator=create_learner(generator_params, generator_parts.optimizer),
        student=create_learner(trained, student_parts.optimizer),
    )


def _initial_generator(config: ConfigDict, parts: GeneratorParts) -> PyTree:
    conditions = parts.sampling.draw(jnp.arange(2, dtype=jnp.uint32))
    init = jax.jit(parts.generator.clone(axis_name=None).init)
    # "rbg" compiles several times faster than the default, with as many layers.
    return init(jax.random.key(config.seed, impl="rbg"), conditions)["params"]
