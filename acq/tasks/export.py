"""Task export: a finished run's network as files for other software."""

from pathlib import Path
from typing import Any

import jax
from absl import logging

from acq.classifier import Classifier
from acq.datasets.opening import open_eval_data
from acq.deploy.integer_ready import IntegerReady, lacks_quantizers
from acq.export import QuantizedNetwork, load_quantized
from acq.quantization.states import quantize_state
from acq.tasks.check import check
from acq.tasks.deployment import (
    measure_mode,
    ready_network,
    stated_accuracy,
    write_deployment,
)
from acq.tasks.settings import TaskSettings, task_settings
from acq.tasks.tables import format_modes
from acq.teacher.evaluation import evaluate_teacher
from acq.teacher.identity import refuse_replaced_weights
from acq.teacher.opening import open_teacher
from common.checkpoint import Checkpoints
from common.config import ConfigDict
from common.devices import is_first_process
from common.errors import UserError
from common.onnx.package import require_onnx
from common.typing import PyTree
from common.workdir import hold_workdir


def export_run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Writes the files beside the network in `workdir/export`, and measures them.

    Returns:
      The section `deployment` of `workdir/export/manifest.json`.

    Raises:
      UserError: onnx is not installed, there is no exported network, it cannot be
        exported, or the file of the teacher's weights was replaced.
    """
    check(config)
    require_onnx()
    settings = task_settings(config)
    with hold_workdir(workdir, "task export"):
        refuse_replaced_weights(settings.teacher, workdir)
        return _export(settings, workdir)


def _export(settings: TaskSettings, workdir: Path) -> dict[str, Any]:
    """Exports in a folder that is held."""
    folder = workdir / "export"
    small = load_quantized(folder)
    teacher = open_teacher(
        settings.teacher,
        workdir,
        digits=settings.digits,
        seed=settings.quantization.seed,
    )
    params = None
    if lacks_quantizers(small):
        params = _generator_params(settings, teacher, workdir)
    ready = ready_network(settings, teacher, small, params)
    accuracy = _accuracy(settings, teacher, small, ready)
    if not is_first_process():
        return {}
    return write_deployment(ready, teacher, accuracy, folder)


def _generator_params(
    settings: TaskSettings, teacher: Classifier, workdir: Path
) -> PyTree:
    """The parameters of the run's generator, after its last step."""
    folder, found = workdir / "checkpoints", None
    if folder.is_dir():
        like = jax.eval_shape(lambda: quantize_state(settings.quantization, teacher))
        with Checkpoints(folder, read_only=True) as checkpoints:
            found = checkpoints.restore(like)
    if found is None:
        raise UserError(
            f"{folder}: holds no checkpoint of the generator, whose images give the "
            "ranges of tensors that this network leaves float. Give the whole "
            "--workdir of the run, quantize with --config.quantizer.other_bits=8, or "
            "call `save_onnx` of the loaded network with images (docs/export.md)."
        )
    return found[1].generator.params


def _accuracy(
    settings: TaskSettings,
    teacher: Classifier,
    small: QuantizedNetwork,
    ready: IntegerReady,
) -> dict[str, Any] | None:
    """The accuracy of all three networks, and a table of it; None without images."""
    data = open_eval_data(settings.evaluation, teacher.record)
    if data is None:
        return None
    batch_size = settings.evaluation.batch_size
    evaluation = evaluate_teacher(
        teacher, data, source=settings.teacher.source, batch_size=batch_size
    )
    results: dict[str, Any] = {"n": len(data), "teacher": evaluation.to_json()}
    for name, network in (("quantized", small), ("integer_ready", ready.network)):
        results[name] = measure_mode(network, data, evaluation.logits, batch_size, name)
    logging.info("\n%s", format_modes(results))
    return stated_accuracy(results)
