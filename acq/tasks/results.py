"""The results of a quantization: accuracies, samples, export, report."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float32

from acq.accuracy import (
    count_one_right,
    logits_of,
    measure_accuracy,
    measure_fidelity,
    predict,
)
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.deploy.integer_ready import IntegerReady
from acq.diagnosis.complaints import complaints
from acq.diagnosis.diagnosis import Diagnosis
from acq.export import QuantizedNetwork
from acq.quantization.parts import create_generator_loss
from acq.quantization.sample_images import make_sample_images
from acq.quantization.settings import QuantizationSettings
from acq.quantization.states import student_variables
from acq.quantization.student_layers import bits_by_layer, quant_layers
from acq.report.compose import Circumstances, quantization_report
from acq.tasks.baselines import measure_baselines
from acq.tasks.deployment import measure_mode, stated_accuracy, write_deployment
from acq.tasks.settings import TaskSettings
from acq.tasks.tables import format_results
from acq.teacher.evaluation import TeacherEvaluation
from acq.training.step_parts import QuantizeState
from common.devices import devices_in_words
from common.onnx.package import INSTALL, has_onnx
from common.report.page import write_page
from common.results import write_results
from common.typing import PyTree
from common.version import STATED

_LATER = "then the same command with --task export"


def collect_results(
    settings: TaskSettings,
    teacher: Classifier,
    state: QuantizeState,
    diagnosis: Diagnosis,
    data: EvalData | None,
    evaluation: TeacherEvaluation | None,
    ready: IntegerReady | None,
    workdir: Path,
) -> dict[str, Any]:
    """Returns the content of `results.json`, but for the run's seconds.

    Args:
      settings: the task's settings.
      teacher: the float network.
      state: the state after the last step, on the host.
      diagnosis: the diagnosis of the generator's samples.
      data: images to evaluate on; None leaves all accuracies out.
      evaluation: the teacher's evaluation on them; None without images.
      ready: the student as integer kernels compute it; None if they cannot.
      workdir: the run's folder, with its metrics.
    """
    run = settings.quantization
    loss = create_generator_loss(run, alone=False)
    metrics = workdir / "metrics.jsonl"
    rates = sorted(_metrics(metrics, "train/steps_per_second"))
    agreement = _metrics(metrics, "train/agreement")
    results: dict[str, Any] = {
        "bits": {
            "weight": run.quantizer.weight_bits,
            "activation": run.quantizer.activation_bits,
            "other": run.quantizer.other_bits or 32,
        },
        "layer_bits": bits_by_layer(run.quantizer, teacher),
        "teacher": {"source": teacher.record.source, "sha256": teacher.record.sha256},
        "quantized": {},
        "baselines": {},
        "samples": diagnosis.scalars(),
        "complaints": complaints(diagnosis, loss),
        "agreement_on_samples": agreement[-1] if agreement else None,
        "seed": run.seed,
        "steps": run.train.steps,
        # The median, since the first steps include compiling.
        "seconds_per_step": round(1 / rates[len(rates) // 2], 4) if rates else 0.0,
    }
    if data is not None and evaluation is not None:
        results["teacher"] |= evaluation.to_json()
        results["complaints"] += evaluation.warnings
        results |= _accuracies(
            settings, teacher, state, data, evaluation.logits, workdir
        )
        if ready is not None:
            results["integer_ready"] = measure_mode(
                ready.network,
                data,
                evaluation.logits,
                settings.evaluation.batch_size,
                "all integers",
            )
    return results


def student_logits(
    settings: QuantizationSettings,
    teacher: Classifier,
    variables: PyTree,
    data: EvalData,
    *,
    batch_size: int,
    name: str,
) -> Float32[np.ndarray, "n k"]:
    """Returns the student's logits of the evaluation images."""
    return predict(
        logits_of(teacher.with_layers(quant_layers(settings.quantizer, teacher))),
        variables,
        data.images,
        batch_size=batch_size,
        normalisation=teacher.record.normalisation,
        name=name,
    )


def _accuracies(
    settings: TaskSettings,
    teacher: Classifier,
    state: QuantizeState,
    data: EvalData,
    teacher_logits: Float32[np.ndarray, "n k"],
    workdir: Path,
) -> dict[str, Any]:
    """The accuracies of the student (last and best) and of the baselines."""
    run, batch_size = settings.quantization, settings.evaluation.batch_size
    generate = make_sample_images(run, teacher, state.generator.params)
    variables = student_variables(teacher, state)
    logits = student_logits(
        run, teacher, variables, data, batch_size=batch_size, name="quantized"
    )
    last = measure_accuracy(logits, data.labels)
    one_right = count_one_right(teacher_logits, logits, data.labels)
    seen = _metrics(workdir / "metrics.jsonl", "val/top1")
    return {
        "quantized": {
            "top1": last.top1,
            "correct": last.correct,
            "best_top1": max([last.top1, *seen]),
            **measure_fidelity(logits, teacher_logits)._asdict(),
            "only_teacher_right": one_right.first,
            "only_quantized_right": one_right.second,
        },
        "n": last.n,
        "baselines": measure_baselines(
            settings.baselines,
            run,
            teacher,
            data,
            generate,
            logits,
            workdir / "baselines.json",
            batch_size=batch_size,
        ),
    }


def _metrics(path: Path, name: str) -> list[float]:
    """The values of a metric, in the order of the steps."""
    if not path.exists():
        return []
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line[name] for line in lines if name in line]


def write_outputs(
    settings: QuantizationSettings,
    teacher: Classifier,
    small: QuantizedNetwork,
    ready: IntegerReady | None,
    diagnosis: Diagnosis,
    results: dict[str, Any],
    data: EvalData | None,
    workdir: Path,
) -> None:
    """Writes export, its files for other software, report and results."""
    small.save(workdir / "export")
    if ready is not None and has_onnx():
        accuracy = stated_accuracy(results)
        write_deployment(ready, teacher, accuracy, workdir / "export")
    elif ready is not None:
        logging.info("No ONNX file, since onnx is missing: %s; %s", INSTALL, _LATER)
    logging.info("\n%s", format_results(results))
    generator = workdir if settings.train.one_loop else workdir / "generator"
    report = quantization_report(
        results,
        diagnosis,
        small,
        circumstances(
            teacher, data, (workdir / "config.json").read_text("utf-8"), workdir
        ),
        student_metrics=workdir / "metrics.jsonl",
        generator_metrics=generator / "metrics.jsonl",
    )
    write_page(workdir / "report.html", report)
    write_results(workdir, results)


def circumstances(
    teacher: Classifier, data: EvalData | None, config: str, workdir: Path
) -> Circumstances:
    """Returns how a report comes about, now and on these devices."""
    return Circumstances(
        title=f"{workdir.resolve().name}: {teacher.record.name}",
        data="" if data is None else data.name,
        config=config,
        version=STATED,
        machine=devices_in_words(),
        written=datetime.now(UTC),
    )
