"""Quantizes a classifier without its data: the run, from a config to its results.

    teacher, evaluated -> generator alone, in workdir/generator -> student on its
    samples -> evaluation, baselines, export, report

Each phase is a `common.loop.fit` with checkpoints of its own, so that a run goes on
from the middle of either. With `config.train.one_loop` there is one loop for both, as
GDFQ has it. Images of the evaluation data are never trained on. The teacher is
evaluated on them before anything is trained, at every start: so one that is not the one
meant, or an image that cannot be used, costs no step.
"""

import time
from pathlib import Path
from typing import Any

from acq.accuracy import measure_accuracy
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.datasets.opening import open_eval_data
from acq.quantization.parts import create_generator_loss
from acq.quantization.phases import generator_phase, shared_batch_size, student_phase
from acq.quantization.sample_watch import look_at_samples, watch_samples
from acq.quantization.states import generator_state, student_variables
from acq.quantization.student_layers import quant_layers
from acq.tasks.check import check
from acq.tasks.results import collect_results, student_logits, write_outputs
from acq.tasks.settings import TaskSettings, task_settings
from acq.teacher.evaluation import (
    TeacherEvaluation,
    evaluate_teacher,
    refuse_wrong_teacher,
)
from acq.teacher.features import check_features
from acq.teacher.identity import hold_teacher, refuse_replaced_weights
from acq.teacher.opening import open_teacher
from acq.training.step_parts import QuantizeState
from common.checkpoint import Checkpoints
from common.config import ConfigDict, hold_config, refuse_other_config
from common.devices import is_first_process, replicate, to_host
from common.errors import UserError
from common.loop import fit
from common.results import finished_results
from common.typing import PyTree
from common.workdir import hold_workdir
from common.writers import MetricsWriter

# What a resumed run may change: nothing that decides its parameters.
FREE_TO_CHANGE = ("task", "data.cache", "eval.batch_size")


def quantize_run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
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
    settings = task_settings(config)
    shared_batch_size(settings.quantization)
    with hold_workdir(workdir, "task quantize"):
        refuse_other_config(config, workdir, free=FREE_TO_CHANGE)
        refuse_replaced_weights(settings.teacher, workdir)
        finished = finished_results(workdir, "quantize", lambda r: "quantized" in r)
        if finished is not None:
            return finished
        return _quantize(config, settings, workdir)


def _quantize(
    config: ConfigDict, settings: TaskSettings, workdir: Path
) -> dict[str, Any]:
    """The run, in a folder that is held."""
    started, run = time.monotonic(), settings.quantization
    teacher, data, evaluation = open_inputs(settings, workdir)
    generator_params = _given_generator(settings, teacher)
    quant_layers(run.quantizer, teacher)  # refuses layers that the teacher lacks
    # All inputs are open: from here on the folder is this run's.
    if is_first_process():
        hold_config(config, workdir, free=FREE_TO_CHANGE)
    hold_teacher(teacher.record, workdir)

    teacher_variables = replicate(teacher.variables)
    if generator_params is None:
        generator_params = _train_generator(
            settings, teacher, teacher_variables, workdir
        )
    state = to_host(
        _train_student(
            settings, teacher, teacher_variables, generator_params, data, workdir
        )
    )
    diagnosis = look_at_samples(run, teacher, state.generator.params, alone=False)
    results = collect_results(
        settings, teacher, state, diagnosis, data, evaluation, workdir
    )
    results["seconds"] = round(time.monotonic() - started, 1)
    if is_first_process():
        variables = student_variables(teacher, state)
        write_outputs(run, teacher, variables, diagnosis, results, workdir)
    return results


def open_inputs(
    settings: TaskSettings, workdir: Path
) -> tuple[Classifier, EvalData | None, TeacherEvaluation | None]:
    """Returns the teacher, the images to evaluate on, and the teacher on them.

    Args:
      settings: of the task.
      workdir: the run's folder.

    Raises:
      UserError: one of them is not there, cannot be used, or is not the one meant.
    """
    run, evaluated = settings.quantization, settings.evaluation
    teacher = open_teacher(
        settings.teacher, workdir, digits=settings.digits, seed=run.seed
    )
    check_features(teacher, create_generator_loss(run, alone=False))
    data = open_eval_data(evaluated, teacher.record)
    if data is None:
        return teacher, None, None
    evaluation = evaluate_teacher(
        teacher,
        data,
        source=settings.teacher.source,
        batch_size=evaluated.batch_size,
    )
    refuse_wrong_teacher(evaluation)
    return teacher, data, evaluation


def _given_generator(settings: TaskSettings, teacher: Classifier) -> PyTree | None:
    """The parameters of another run's generator; None where none is given."""
    path = settings.generator_path
    if path is None:
        return None
    like, found = generator_state(settings.quantization, teacher), None
    if (folder := path / "checkpoints").is_dir():
        with Checkpoints(folder, read_only=True) as checkpoints:
            found = checkpoints.restore(like)
    if found is None:
        raise UserError(
            f"config.generator.path: {path} has no checkpoint. Give the folder "
            "`generator` of another run with the same generator."
        )
    return found[1].generator.params


def _train_generator(
    settings: TaskSettings,
    teacher: Classifier,
    teacher_variables: PyTree,
    workdir: Path,
) -> PyTree:
    """The generator's parameters after its steps alone."""
    run, folder = settings.quantization, workdir / "generator"
    phase = generator_phase(run, teacher, teacher_variables)
    steps = phase.plan.total
    if not steps:
        return phase.state.generator.params
    with Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        state = fit(
            phase.state,
            phase.p_step,
            phase.draws,
            phase.plan,
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(folder, after_step=after),
            evaluate=lambda state: watch_samples(
                run,
                teacher,
                state.generator,
                alone=True,
                settled=int(state.step) >= steps / 2,
            ),
            name=phase.name,
        )
    return to_host(state.generator.params)


def _train_student(
    settings: TaskSettings,
    teacher: Classifier,
    teacher_variables: PyTree,
    generator_params: PyTree,
    data: EvalData | None,
    workdir: Path,
) -> QuantizeState:
    """The final state."""
    phase = student_phase(
        settings.quantization, teacher, teacher_variables, generator_params
    )
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return fit(
            phase.state,
            phase.p_step,
            phase.draws,
            phase.plan,
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(workdir, after_step=after),
            evaluate=lambda state: _evaluate_student(settings, teacher, data, state),
            name=phase.name,
        )


def _evaluate_student(
    settings: TaskSettings,
    teacher: Classifier,
    data: EvalData | None,
    state: QuantizeState,
) -> dict[str, float]:
    """The scalars of a step: accuracy, and samples of a generator that still learns."""
    run, step = settings.quantization, int(state.step)
    waits, scalars = run.waiting_steps, {}
    # One that waits is no student yet, and is not to count as the best; whether it
    # does for GDFQ is not known here.
    if data is not None and step > waits:
        logits = student_logits(
            run,
            teacher,
            student_variables(teacher, state),
            data,
            batch_size=settings.evaluation.batch_size,
            name="validate",
        )
        scalars["val/top1"] = measure_accuracy(logits, data.labels).top1
    if run.generator.learns:
        scalars |= watch_samples(
            run, teacher, state.generator, alone=False, settled=step >= waits / 2
        )
    return scalars
