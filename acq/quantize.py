"""Quantizes a classifier without its data: the run, from a config to its results.

    teacher -> generator alone, in workdir/generator -> student on its samples ->
    evaluation, baselines, export, report

Each phase is a `common.loop.fit` with checkpoints of its own, so that a run goes on
from the middle of either. Images of the evaluation data are never trained on.
"""

import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from acq import settings
from acq.baselines import measure_baselines, statistics_ranges
from acq.check import check
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.datasets.opening import open_eval_data
from acq.diagnosis.complaints import complaints
from acq.diagnosis.diagnose import Diagnosis, diagnose
from acq.diagnosis.pictures import centers_png, samples_png
from acq.draws import Draws
from acq.evaluate import Accuracy, logits_of, top1
from acq.quantized import export_quantized
from acq.result_table import format_results
from acq.step_parts import (
    GeneratorParts,
    GeneratorState,
    Learner,
    QuantizeState,
    create_learner,
)
from acq.teacher.opening import open_teacher
from acq.train_step import make_generator_step, make_quantize_step
from common.checkpoint import Checkpoints
from common.config import ConfigDict, hold_config
from common.devices import (
    is_first_process,
    per_process,
    pmap_frozen_step,
    replicate,
    to_host,
)
from common.errors import UserError
from common.files import write_atomically
from common.html_report import curves_png, write_report
from common.loop import Plan, fit
from common.typing import PyTree
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
    started = time.monotonic()
    check(config)
    _batch_size(config)
    hold_config(config, workdir, free=FREE_TO_CHANGE)
    path = workdir / "results.json"
    if path.exists():
        logging.info("%s is complete: %s", workdir, path)
        return json.loads(path.read_text(encoding="utf-8"))
    teacher = open_teacher(config, workdir)
    data = open_eval_data(config, teacher)
    teacher_variables = replicate(teacher.variables)

    generator_params = _train_generator(config, teacher, teacher_variables, workdir)
    state, step_seconds = _train_student(
        config, teacher, teacher_variables, generator_params, data, workdir
    )
    student = {
        **to_host(state.student.params),
        "batch_stats": teacher.variables["batch_stats"],
    }
    diagnosis = _look(config, teacher, state.generator.params, alone=False)
    results: dict[str, Any] = {
        "bits": {
            "weight": config.quantizer.weight_bits,
            "activation": config.quantizer.activation_bits,
            "other": config.quantizer.other_bits or 32,
        },
        "teacher": {"source": teacher.record.source, "sha256": teacher.record.sha256},
        "quantized": {},
        "baselines": {},
        "samples": diagnosis.scalars(),
        "complaints": complaints(
            diagnosis, settings.generator_parts(config, teacher, alone=False).loss
        ),
        "agreement": _last(workdir / "metrics.jsonl", "train/agreement"),
        "seed": config.seed,
        "steps": settings.to_steps(config, "train.duration"),
        "seconds_per_step": round(step_seconds, 4),
    }
    if data is not None:
        results |= _accuracies(config, teacher, student, data, state, workdir, results)
    results["seconds"] = round(time.monotonic() - started, 1)
    if is_first_process():
        _write(config, teacher, student, diagnosis, results, workdir)
    return results


def _train_generator(
    config: ConfigDict, teacher: Classifier, teacher_variables: PyTree, workdir: Path
) -> PyTree:
    """The generator's parameters after its steps alone."""
    parts = settings.generator_parts(config, teacher, alone=True)
    folder = workdir / "generator"
    steps = settings.to_steps(config, "generator.warmup")
    state = GeneratorState(
        step=jnp.int32(0),
        generator=create_learner(_initial_generator(config, parts), parts.optimizer),
    )
    if config.generator.path:
        with Checkpoints(Path(config.generator.path) / "checkpoints") as checkpoints:
            found = checkpoints.restore(state)
        if found is None:
            raise UserError(
                f"config.generator.path: {config.generator.path} has no checkpoint. "
                "Give the folder `generator` of another run with the same generator."
            )
        return found[1].generator.params
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
) -> tuple[QuantizeState, float]:
    """The final state, and the seconds a step took."""
    generator_parts = settings.generator_parts(config, teacher, alone=False)
    student_parts = settings.student_parts(config, teacher)
    state = student_state(config, teacher, generator_params)
    p_step = pmap_frozen_step(
        make_quantize_step(
            generator_parts, student_parts, generator_learns=config.generator.learns
        )
    )
    batch_size = _batch_size(config)

    def evaluate(state: QuantizeState) -> dict[str, float]:
        scalars = {}
        if data is not None:
            variables = {
                **state.student.params,
                "batch_stats": teacher.variables["batch_stats"],
            }
            scalars["val/top1"] = _accuracy(
                config, teacher, variables, data, name="validate"
            ).top1
        if config.generator.learns:
            scalars |= _watch(config, teacher, state.generator, alone=False)
        return scalars

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = fit(
            state,
            functools.partial(p_step, teacher_variables),
            # Behind the numbers of the generator's steps alone: new samples.
            Draws(
                batch_size,
                first=batch_size * settings.to_steps(config, "generator.warmup"),
            ),
            _plan(config, settings.to_steps(config, "train.duration")),
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(workdir, after_step=after),
            evaluate=evaluate,
            name="student",
        )
    return state, _median_step_seconds(workdir / "metrics.jsonl")


def student_state(
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


def _accuracy(
    config: ConfigDict,
    teacher: Classifier,
    variables: PyTree,
    data: EvalData,
    *,
    name: str,
) -> Accuracy:
    """Of the student."""
    return top1(
        logits_of(teacher.with_layers(settings.quant_layers(config))),
        variables,
        data,
        batch_size=config.eval.batch_size,
        normalisation=teacher.record.normalisation,
        name=name,
    )


def _accuracies(
    config: ConfigDict,
    teacher: Classifier,
    student: PyTree,
    data: EvalData,
    state: QuantizeState,
    workdir: Path,
    results: dict[str, Any],
) -> dict[str, Any]:
    """Top-1 of the teacher, the student (last and best) and the baselines."""
    parts = settings.generator_parts(config, teacher, alone=False)

    @jax.jit
    def images(params: PyTree, draw: jax.Array) -> jax.Array:
        conditions = parts.sampling.draw(draw)
        made = parts.generator.clone(axis_name=None).apply(
            {"params": params}, conditions
        )
        return jnp.asarray(made)

    size, params = config.train.batch_size, to_host(state.generator.params)

    def generate(batch: int) -> jax.Array:
        return images(
            params, jnp.arange(batch * size, (batch + 1) * size, dtype="uint32")
        )

    floats = top1(
        logits_of(teacher.network),
        teacher.variables,
        data,
        batch_size=config.eval.batch_size,
        normalisation=teacher.record.normalisation,
        name="teacher",
    )
    last = _accuracy(config, teacher, student, data, name="quantized")
    seen = _metrics(workdir / "metrics.jsonl", "val/top1")
    return {
        "teacher": results["teacher"]
        | {"top1": floats.top1, "correct": floats.correct},
        "quantized": {
            "top1": last.top1,
            "correct": last.correct,
            "best_top1": max([last.top1, *seen]),
        },
        "n": last.n,
        "baselines": measure_baselines(
            config, teacher, data, generate, workdir / "baselines.json"
        ),
    }


def _metrics(path: Path, name: str) -> list[float]:
    """The values of a metric, in the order of the steps."""
    if not path.exists():
        return []
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line[name] for line in lines if name in line]


def _last(path: Path, name: str) -> float | None:
    """The last value of a metric; None where none was written."""
    return values[-1] if (values := _metrics(path, name)) else None


def _median_step_seconds(path: Path) -> float:
    """Of the steps between two lines; the first line, with the compilation, too."""
    rates = sorted(_metrics(path, "train/steps_per_second"))
    return 1 / rates[len(rates) // 2] if rates else 0.0


def _write(
    config: ConfigDict,
    teacher: Classifier,
    student: PyTree,
    diagnosis: Diagnosis,
    results: dict[str, Any],
    workdir: Path,
) -> None:
    """Export, report and, last, the results: a folder with them is complete."""
    export_quantized(
        workdir / "export",
        config,
        teacher,
        student,
        {"seed": config.seed, "step": results["steps"]},
    )
    table = format_results(results)
    logging.info("\n%s", table)
    curves = {
        "Student": curves_png(
            workdir / "metrics.jsonl", ("train/student_loss", "val/top1")
        )
    }
    generator_metrics = workdir / "generator" / "metrics.jsonl"
    if generator_metrics.exists():
        curves["Generator"] = curves_png(
            generator_metrics,
            ("train/generator_loss", "train/generator_statistics", "train/recognised"),
        )
    write_report(
        workdir / "report.html",
        title=f"{workdir.name}: {teacher.record.name}",
        texts={
            "Results": table,
            "Config": (workdir / "config.json").read_text(encoding="utf-8"),
        },
        pictures={
            "Samples, with the teacher's attention": samples_png(
                diagnosis, teacher.record
            ),
            "Centres of attention": centers_png(diagnosis),
            **curves,
        },
    )
    write_atomically(workdir / "results.json", json.dumps(results, indent=2) + "\n")
