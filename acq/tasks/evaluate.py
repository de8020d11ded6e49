"""Task evaluate: accuracy of the float teacher and of the network a run exported."""

import json
from pathlib import Path
from typing import Any

from absl import logging

from acq.accuracy import (
    count_one_right,
    logits_of,
    measure_accuracy,
    measure_fidelity,
    predict,
)
from acq.datasets.eval_data import EvalData
from acq.datasets.opening import open_eval_data
from acq.export import QuantizedNetwork, load_quantized
from acq.report.compose import evaluation_report
from acq.tasks.check import check
from acq.tasks.results import circumstances
from acq.tasks.settings import TaskSettings, task_settings
from acq.teacher.evaluation import TeacherEvaluation, evaluate_teacher
from acq.teacher.identity import refuse_replaced_weights
from acq.teacher.opening import open_teacher
from common.checkpoint import MANIFEST
from common.config import ConfigDict, as_json
from common.devices import is_first_process
from common.errors import UserError
from common.files import write_atomically
from common.report.page import write_page
from common.workdir import hold_workdir


def evaluate_run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the teacher and the quantized network in `workdir/export`, if any.

    Returns:
      The content of `workdir/evaluation.json`, which `evaluation.html` shows.

    Raises:
      UserError: there are no data to evaluate on, there is no teacher, or the file of
        its weights was replaced since the run in `workdir`.
    """
    check(config)
    settings = task_settings(config)
    with hold_workdir(workdir, "task evaluate"):
        refuse_replaced_weights(settings.teacher, workdir)
        return _evaluate(settings, as_json(config), workdir)


def _evaluate(
    settings: TaskSettings, config: dict[str, Any], workdir: Path
) -> dict[str, Any]:
    """Evaluates in a folder that is held; returns the results."""
    teacher = open_teacher(
        settings.teacher,
        workdir,
        digits=settings.digits,
        seed=settings.quantization.seed,
    )
    data = open_eval_data(settings.evaluation, teacher.record)
    if data is None:
        raise UserError(
            "task evaluate needs labelled images: give --config.eval.path=FILE (an "
            ".npz with images and labels, or a folder) or --config.eval.dataset=NAME"
        )
    batch_size = settings.evaluation.batch_size
    evaluation = evaluate_teacher(
        teacher, data, source=settings.teacher.source, batch_size=batch_size
    )
    if evaluation.refusal:
        logging.warning("%s", evaluation.refusal)
    results: dict[str, Any] = {"n": len(data), "teacher": evaluation.to_json()}
    quantized = None
    if (workdir / "export" / MANIFEST).exists():
        quantized = load_quantized(workdir / "export")
        results["quantized"] = _evaluate_export(quantized, data, evaluation, batch_size)
    if is_first_process():
        # Not report.html: it is the quantization's, which may still come.
        write_page(
            workdir / "evaluation.html",
            evaluation_report(
                results,
                teacher.record,
                quantized,
                [*evaluation.warnings, *filter(None, [evaluation.refusal])],
                circumstances(teacher, data, json.dumps(config, indent=2), workdir),
            ),
        )
        write_atomically(
            workdir / "evaluation.json", json.dumps(results, indent=2) + "\n"
        )
    return results


def _evaluate_export(
    quantized: QuantizedNetwork,
    data: EvalData,
    teacher: TeacherEvaluation,
    batch_size: int,
) -> dict[str, Any]:
    """Accuracy of the exported network, and how close it is to the teacher."""
    logits = predict(
        logits_of(quantized.network),
        quantized.variables,
        data.images,
        batch_size=batch_size,
        normalisation=quantized.record.normalisation,
        name="quantized",
    )
    accuracy, close = (
        measure_accuracy(logits, data.labels),
        measure_fidelity(logits, teacher.logits),
    )
    one_right = count_one_right(teacher.logits, logits, data.labels)
    logging.info(
        "quantized: %.2f %% of %d images (%d wrong), as the teacher on %.2f %%",
        accuracy.top1, accuracy.n, accuracy.n - accuracy.correct, close.agreement,
    )  # fmt: skip
    return {
        "top1": accuracy.top1,
        "correct": accuracy.correct,
        **close._asdict(),
        "only_teacher_right": one_right.first,
        "only_quantized_right": one_right.second,
    }
