"""Task evaluate: the float teacher's accuracy, and that of what a run exported."""

import json
from pathlib import Path
from typing import Any

from absl import logging

from acq.check import check
from acq.datasets.opening import open_eval_data
from acq.evaluate import fidelity, logits_of, predict, top1
from acq.quantized import load_quantized
from acq.teacher.opening import open_teacher
from common.checkpoint import MANIFEST
from common.config import ConfigDict
from common.devices import is_first_process
from common.errors import UserError
from common.files import write_atomically
from common.workdir import hold_workdir


def evaluate_run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the teacher and, where `workdir/export` has one, the quantized network.

    Returns:
      What `workdir/evaluation.json` holds.

    Raises:
      UserError: there are no data to evaluate on, or no teacher.
    """
    check(config)
    with hold_workdir(workdir, "task evaluate"):
        return _evaluate(config, workdir)


def _evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """The evaluation, in a folder that is held."""
    teacher = open_teacher(config, workdir)
    data = open_eval_data(config, teacher)
    if data is None:
        raise UserError(
            "task evaluate needs labelled images: give --config.eval.path=FILE (an "
            ".npz with images and labels, or a folder) or --config.eval.dataset=NAME"
        )
    networks = {"teacher": (teacher.network, teacher.variables)}
    if (workdir / "export" / MANIFEST).exists():
        quantized = load_quantized(workdir / "export")
        networks["quantized"] = (quantized.network, quantized.variables)
    results: dict[str, Any] = {"n": len(data)}
    logits = {}
    for name, (network, variables) in networks.items():
        logits[name] = predict(
            logits_of(network),
            variables,
            data.images,
            batch_size=config.eval.batch_size,
            normalisation=teacher.record.normalisation,
            name=name,
        )
        accuracy = top1(logits[name], data.labels)
        results[name] = {"top1": accuracy.top1, "correct": accuracy.correct}
        logging.info(
            "%s: %.2f %% of %d images (%d wrong)",
            name, accuracy.top1, accuracy.n, accuracy.n - accuracy.correct,
        )  # fmt: skip
    if "quantized" in logits:
        close = fidelity(logits["quantized"], logits["teacher"])
        results["quantized"] |= close._asdict()
        logging.info(
            "quantized and teacher agree on %.2f %% of the images", close.agreement
        )
    if is_first_process():
        write_atomically(
            workdir / "evaluation.json", json.dumps(results, indent=2) + "\n"
        )
    return results
