"""Task quantize: a classifier without its data, from a config to its results.

    teacher, evaluated -> generator alone, in workdir/generator -> student on its
    samples -> evaluation, baselines, export, files for other software, report

Each phase is a `common.loop.fit` and has its own checkpoints, so a run can go on from
the middle of either. With `config.train.one_loop` both learn in one loop, as in GDFQ.
Images of the evaluation data are never trained on. Every start evaluates the teacher on
them before it trains anything. So a wrong teacher, or an image that cannot be used,
costs no step.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

from absl import logging

from acq.accuracy import measure_accuracy
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.datasets.opening import open_eval_data
from acq.deploy.integer_ready import IntegerReady
from acq.deploy.network_graph import float_graph
from acq.export import QuantizedNetwork, quantize_student
from acq.quantization.bit_budget import refuse_small_budget
from acq.quantization.parts import create_generator_loss
from acq.quantization.phases import generator_phase, shared_batch_size, student_phase
from acq.quantization.sample_watch import look_at_samples, watch_samples
from acq.quantization.settings import QuantizationSettings
from acq.quantization.states import generator_state, student_variables
from acq.quantization.student_layers import quant_layers
from acq.tasks.check import check
from acq.tasks.chosen_bits import hold_bits
from acq.tasks.deployment import ready_network
from acq.tasks.results import collect_results, student_logits, write_outputs
from acq.tasks.settings import FREE_TO_CHANGE, TaskSettings, task_settings
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
from common.config import ConfigDict, as_json
from common.devices import is_first_process, replicate, to_host
from common.errors import UserError
from common.loop import fit
from common.run import Run
from common.typing import PyTree
from common.writers import MetricsWriter


def quantize_run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Quantizes, evaluates and exports; goes on with a run that was interrupted.

    Args:
      config: the config of a recipe; checked here.
      workdir: the run's folder.

    Returns:
      The content of `workdir/results.json`.

    Raises:
      UserError: the config or the input is wrong.
      RunFailed: a loss was not finite.
      Interrupted: a signal came; the checkpoint is written.
    """
    check(config)
    settings = task_settings(config)
    shared_batch_size(settings.quantization.train.batch_size)
    run = Run(config=as_json(config), workdir=workdir, free=FREE_TO_CHANGE)
    with run.hold("quantize", lambda results: "quantized" in results) as finished:
        refuse_replaced_weights(settings.teacher, workdir)
        return finished if finished is not None else _quantize(run, settings)


def _quantize(run: Run, settings: TaskSettings) -> dict[str, Any]:
    """Quantizes in a folder that is held; returns the results."""
    started, workdir = time.monotonic(), run.workdir
    quantization = settings.quantization
    teacher, data, evaluation = open_inputs(settings, workdir)
    generator_params = _given_generator(settings, teacher)
    quant_layers(quantization.quantizer, teacher)  # refuses layers it does not have
    refuse_small_budget(quantization.quantizer, teacher)
    _say_if_not_exportable(teacher)
    # All inputs are open: from here on the folder is this run's.
    run.begin()
    hold_teacher(teacher.record, workdir)
    quantization = hold_bits(quantization, teacher, workdir)
    settings = dataclasses.replace(settings, quantization=quantization)

    _say_steps(quantization, learns=generator_params is None)
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
    diagnosis = look_at_samples(
        quantization, teacher, state.generator.params, alone=False
    )
    small = quantize_student(quantization, teacher, student_variables(teacher, state))
    ready = _ready(settings, teacher, small, state.generator.params)
    results = collect_results(
        settings, teacher, state, diagnosis, data, evaluation, ready, workdir
    )
    results["seconds"] = round(time.monotonic() - started, 1)
    if is_first_process():
        write_outputs(
            quantization, teacher, small, ready, diagnosis, results, data, workdir
        )
    return results


def _say_steps(run: QuantizationSettings, *, learns: bool) -> None:
    """Says how many steps come; the loop measures what they take."""
    alone = run.alone_steps if learns else 0
    student = run.waiting_steps + run.train.steps
    logging.info(
        "%d steps of %d samples: %d of the generator alone, then %d of the student%s",
        alone + student, run.train.batch_size, alone, student,
        " and the generator" if run.generator.learns else "",
    )  # fmt: skip


def _say_if_not_exportable(teacher: Classifier) -> None:
    """Says before any training that no other software will run the network."""
    try:
        float_graph(teacher)
    except UserError as error:
        logging.warning("There will be no ONNX file: %s", error)


def _ready(
    settings: TaskSettings,
    teacher: Classifier,
    small: QuantizedNetwork,
    generator_params: PyTree,
) -> IntegerReady | None:
    """The student as integer kernels compute it; None, and a line, if they cannot."""
    try:
        return ready_network(settings, teacher, small, generator_params)
    except UserError as error:
        logging.warning("No ONNX file: %s", error)
        return None


def open_inputs(
    settings: TaskSettings, workdir: Path
) -> tuple[Classifier, EvalData | None, TeacherEvaluation | None]:
    """Returns the teacher, the images to evaluate on, and the teacher on them.

    Args:
      settings: the task's settings.
      workdir: the run's folder.

    Raises:
      UserError: teacher or images are missing or cannot be used, or the teacher's
        accuracy shows that it is a wrong one.
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
    """The parameters of another run's generator; None if none is given."""
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
    """Trains the generator alone; returns its parameters."""
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
    """Trains the student; returns the final state."""
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
    """The student's accuracy, and numbers of the samples if the generator learns."""
    run, step = settings.quantization, int(state.step)
    waits, scalars = run.waiting_steps, {}
    # A network that waits is no student yet and must not count as the best. Whether
    # it counts in GDFQ is not known here.
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
