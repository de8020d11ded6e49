"""Quantizes a classifier without its data: the run, from a config to its results.

    teacher, evaluated -> generator alone, in workdir/generator -> student on its
    samples -> evaluation, baselines, export, report

Each phase is a `common.loop.fit` with checkpoints of its own, so that a run goes on
from the middle of either. With `config.train.one_loop` there is one loop for both, as
GDFQ has it. Images of the evaluation data are never trained on. The teacher is
evaluated on them before anything is trained, at every start: so one that is not the one
meant, or an image that cannot be used, costs no step.
"""

import functools
import time
from pathlib import Path
from typing import Any

import jax
from absl import logging

from acq.accuracy import top1
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.datasets.opening import open_eval_data
from acq.diagnosis.complaints import complaints
from acq.diagnosis.diagnose import Diagnosis, diagnose
from acq.samples.draws import Draws
from acq.tasks import settings
from acq.tasks.check import check
from acq.tasks.initial_states import generator_state, quantize_state
from acq.tasks.results import (
    collect_results,
    student_logits,
    student_variables,
    write_outputs,
)
from acq.teacher.evaluation import (
    TeacherEvaluation,
    evaluate_teacher,
    refuse_wrong_teacher,
)
from acq.teacher.features import check_features
from acq.teacher.identity import hold_teacher, refuse_replaced_weights
from acq.teacher.opening import open_teacher
from acq.training.step_parts import Learner, QuantizeState
from acq.training.train_step import make_generator_step, make_quantize_step
from common.checkpoint import Checkpoints
from common.config import ConfigDict, hold_config, refuse_other_config
from common.devices import (
    is_first_process,
    per_process,
    pmap_frozen_step,
    replicate,
    to_host,
)
from common.errors import UserError
from common.loop import Plan, fit
from common.results import finished_results
from common.typing import PyTree
from common.workdir import hold_workdir
from common.writers import MetricsWriter

# What a resumed run may change: nothing that decides its parameters.
FREE_TO_CHANGE = ("task", "data.cache", "eval.batch_size")


def quantize(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Quantizes, evaluates and exports; or goes on with it; or says that it is done.

    Args:
      config: of a recipe; checked here.
      workdir: the run's folder.

    Returns:
      What `workdir/results.json` holds.

    Raises:
      UserError: the config or the input is wrong.
      RunFailed: a loss was not finite.
      Interrupted: a signal came; the checkpoint is written.
    """
    check(config)
    _batch_size(config)
    with hold_workdir(workdir, "task quantize"):
        refuse_other_config(config, workdir, free=FREE_TO_CHANGE)
        refuse_replaced_weights(config, workdir)
        finished = finished_results(workdir, "quantize", lambda r: "quantized" in r)
        if finished is not None:
            return finished
        return _quantize(config, workdir)


def _quantize(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """The run, in a folder that is held."""
    started = time.monotonic()
    teacher, data, evaluation = open_inputs(config, workdir)
    given_params = _given_generator(config, teacher)
    settings.quant_layers(config, teacher)  # refuses layers that the teacher lacks
    # All inputs are open: from here on the folder is this run's.
    if is_first_process():
        hold_config(config, workdir, free=FREE_TO_CHANGE)
    hold_teacher(teacher.record, workdir)
    teacher_variables = replicate(teacher.variables)

    if (generator_params := given_params) is None:
        generator_params = _train_generator(config, teacher, teacher_variables, workdir)
    state = _train_student(
        config, teacher, teacher_variables, generator_params, data, workdir
    )
    state = to_host(state)
    diagnosis = _look(config, teacher, state.generator.params, alone=False)
    results = collect_results(
        config, teacher, state, diagnosis, data, evaluation, workdir
    )
    results["seconds"] = round(time.monotonic() - started, 1)
    if is_first_process():
        variables = student_variables(teacher, state)
        write_outputs(config, teacher, variables, diagnosis, results, workdir)
    return results


def open_inputs(
    config: ConfigDict, workdir: Path
) -> tuple[Classifier, EvalData | None, TeacherEvaluation | None]:
    """Returns the teacher, the images to evaluate on, and the teacher on them.

    Args:
      config: checked.
      workdir: the run's folder.

    Raises:
      UserError: one of them is not there, cannot be used, or is not the one meant.
    """
    teacher = open_teacher(config, workdir)
    check_features(config, teacher)
    data = open_eval_data(config, teacher)
    if data is None:
        return teacher, None, None
    evaluation = evaluate_teacher(config, teacher, data)
    refuse_wrong_teacher(evaluation)
    return teacher, data, evaluation


def _given_generator(config: ConfigDict, teacher: Classifier) -> PyTree | None:
    """The parameters of another run's generator; None where none is given."""
    path = config.generator.path
    if not path:
        return None
    parts = settings.generator_parts(config, teacher, alone=True)
    like, found = generator_state(config, parts), None
    if (folder := Path(path) / "checkpoints").is_dir():
        with Checkpoints(folder, read_only=True) as checkpoints:
            found = checkpoints.restore(like)
    if found is None:
        raise UserError(
            f"config.generator.path: {path} has no checkpoint. Give the folder "
            "`generator` of another run with the same generator."
        )
    return found[1].generator.params


def _train_generator(
    config: ConfigDict, teacher: Classifier, teacher_variables: PyTree, workdir: Path
) -> PyTree:
    """The generator's parameters after its steps alone."""
    parts = settings.generator_parts(config, teacher, alone=True)
    folder = workdir / "generator"
    steps = settings.alone_steps(config)
    state = generator_state(config, parts)
    if not steps:
        return state.generator.params
    p_step = pmap_frozen_step(make_generator_step(parts))
    with Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        state = fit(
            state,
            functools.partial(p_step, teacher_variables),
            Draws(_batch_size(config)),
            _plan(config, steps),
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(folder, after_step=after),
            evaluate=lambda state: _watch(
                config,
                teacher,
                state.generator,
                alone=True,
                settled=int(state.step) >= steps / 2,
            ),
            name="generator",
        )
    return to_host(state.generator.params)


def _train_student(
    config: ConfigDict,
    teacher: Classifier,
    teacher_variables: PyTree,
    generator_params: PyTree,
    data: EvalData | None,
    workdir: Path,
) -> QuantizeState:
    """The final state."""
    generator_parts = settings.generator_parts(config, teacher, alone=False)
    student_parts = settings.student_parts(config, teacher)
    state = quantize_state(config, teacher, generator_params)
    p_step = pmap_frozen_step(
        make_quantize_step(
            generator_parts, student_parts, generator_learns=config.generator.learns
        )
    )
    batch_size = _batch_size(config)
    waits = settings.waiting_steps(config)

    def evaluate(state: QuantizeState) -> dict[str, float]:
        scalars, step = {}, int(state.step)
        # One that waits is no student yet, and is not to count as the best; whether it
        # does for GDFQ is not known here.
        if data is not None and step > waits:
            variables = student_variables(teacher, state)
            logits = student_logits(config, teacher, variables, data, name="validate")
            scalars["val/top1"] = top1(logits, data.labels).top1
        if config.generator.learns:
            scalars |= _watch(
                config,
                teacher,
                state.generator,
                alone=False,
                settled=step >= waits / 2,
            )
        return scalars

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return fit(
            state,
            functools.partial(p_step, teacher_variables),
            # Behind the numbers of the generator's steps alone: new samples.
            Draws(
                batch_size,
                first=batch_size
                * (settings.to_steps(config, "generator.warmup") - waits),
            ),
            _plan(config, waits + settings.to_steps(config, "train.duration")),
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(workdir, after_step=after),
            evaluate=evaluate,
            name="student",
        )


def _batch_size(config: ConfigDict) -> int:
    """The batch over all devices, after checking that devices share it in pairs.

    Raises:
      UserError: they do not.
    """
    size = config.train.batch_size
    if per_process(size, "train.batch_size") % (2 * jax.local_device_count()):
        raise UserError(
            f"config.train.batch_size: got {size}, accepted: a multiple of "
            f"{2 * jax.device_count()}, pairs on {jax.device_count()} devices"
        )
    return size


def _plan(config: ConfigDict, steps: int) -> Plan:
    return Plan(
        total=steps,
        **{
            key: settings.to_steps(config, f"train.{key}")
            for key in ("log", "evaluate", "save")
        },
    )


def _look(
    config: ConfigDict, teacher: Classifier, generator_params: PyTree, *, alone: bool
) -> Diagnosis:
    """What a fresh lot of samples, seen in no step, shows."""
    steps = sum(
        settings.to_steps(config, key) for key in ("generator.warmup", "train.duration")
    )
    return diagnose(
        settings.generator_parts(config, teacher, alone=alone),
        generator_params,
        teacher.variables,
        first=config.train.batch_size * steps,
        count=config.train.looked_at,
        batch_size=config.train.batch_size,
    )


def _watch(
    config: ConfigDict,
    teacher: Classifier,
    learner: Learner,
    *,
    alone: bool,
    settled: bool = True,
) -> dict[str, float]:
    """The diagnosis' numbers, with a warning for whatever is wrong."""
    diagnosis = _look(config, teacher, learner.params, alone=alone)
    loss = settings.generator_parts(config, teacher, alone=alone).loss
    for text in complaints(diagnosis, loss, settled=settled):
        logging.warning("%s", text)
    return diagnosis.scalars()
