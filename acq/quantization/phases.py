"""The two phases of a quantization: the generator alone, then the student.

With `train.one_loop` there is the second phase alone, and both learn in it.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax

from acq.classifier import Classifier
from acq.quantization.parts import generator_parts, student_parts
from acq.quantization.settings import QuantizationSettings
from acq.quantization.states import generator_state, quantize_state
from acq.samples.draws import Draws
from acq.training.train_step import make_generator_step, make_quantize_step
from common.devices import per_process, pmap_frozen_step
from common.errors import UserError
from common.loop import Plan
from common.typing import Metrics, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Phase:
    """The steps of a phase, and its state before the first step.

    Attributes:
      name: the name of the work, for the progress line.
      state: the state before the first step.
      p_step: pmapped `step(state, shard) -> (state, metrics)`; donates the state.
      draws: the numbers of each step's samples.
      plan: the number of steps, and their rhythm.
    """

    name: str
    state: PyTree
    p_step: Callable[[PyTree, PyTree], tuple[PyTree, Metrics]]
    draws: Draws
    plan: Plan


def generator_phase(
    settings: QuantizationSettings, teacher: Classifier, teacher_variables: PyTree
) -> Phase:
    """Returns the phase of the generator alone, of `settings.alone_steps` steps.

    Args:
      settings: the settings of the quantization.
      teacher: the classifier that must recognise the generator's images.
      teacher_variables: the teacher's variables on every device, by `replicate`.
    """
    parts = generator_parts(settings, teacher, alone=True)
    p_step = pmap_frozen_step(make_generator_step(parts))
    return Phase(
        name="generator",
        state=generator_state(settings, teacher),
        p_step=functools.partial(p_step, teacher_variables),
        draws=Draws(shared_batch_size(settings.train.batch_size)),
        plan=_plan(settings, settings.alone_steps),
    )


def student_phase(
    settings: QuantizationSettings,
    teacher: Classifier,
    teacher_variables: PyTree,
    generator_params: PyTree,
) -> Phase:
    """Returns the phase of the student.

    Args:
      settings: the settings of the quantization.
      teacher: the student's teacher.
      teacher_variables: the teacher's variables on every device, by `replicate`.
      generator_params: the generator's parameters after its steps alone.
    """
    p_step = pmap_frozen_step(
        make_quantize_step(
            generator_parts(settings, teacher, alone=False),
            student_parts(settings, teacher),
            generator_learns=settings.generator.learns,
        )
    )
    batch_size = shared_batch_size(settings.train.batch_size)
    waits = settings.waiting_steps
    return Phase(
        name="student",
        state=quantize_state(settings, teacher, generator_params),
        p_step=functools.partial(p_step, teacher_variables),
        # Numbers that the generator's steps alone did not use: new samples.
        draws=Draws(
            batch_size, first=batch_size * (settings.train.generator_steps - waits)
        ),
        plan=_plan(settings, waits + settings.train.steps),
    )


def shared_batch_size(size: int) -> int:
    """Returns the batch size over all devices.

    Raises:
      UserError: the devices cannot share the batch in pairs.
    """
    if per_process(size, "train.batch_size") % (2 * jax.local_device_count()):
        raise UserError(
            f"config.train.batch_size: got {size}, accepted: a multiple of "
            f"{2 * jax.device_count()}, pairs on {jax.device_count()} devices"
        )
    return size


def _plan(settings: QuantizationSettings, steps: int) -> Plan:
    train = settings.train
    return Plan(total=steps, log=train.log, evaluate=train.evaluate, save=train.save)
