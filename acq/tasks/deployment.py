"""Files for other software beside a run's export, and the network that they hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float32

from acq.accuracy import logits_of, measure_accuracy, measure_fidelity, predict
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.deploy.files import sizes_in_words, write_files
from acq.deploy.integer_ready import (
    IntegerReady,
    lacks_quantizers,
    make_integer_ready,
)
from acq.export import DEPLOYMENT, QuantizedNetwork
from acq.quantization.sample_images import make_sample_images
from acq.tasks.settings import TaskSettings
from common.checkpoint import MANIFEST, load_manifest
from common.files import write_atomically
from common.typing import PyTree


def ready_network(
    settings: TaskSettings,
    teacher: Classifier,
    small: QuantizedNetwork,
    generator_params: PyTree | None,
) -> IntegerReady:
    """Returns a quantized network as integer kernels compute it.

    Missing ranges are those of `config.baselines.batches` batches of the generator.

    Args:
      settings: the task's settings.
      teacher: the float network.
      small: the quantized network.
      generator_params: the generator's parameters; None if no ranges are missing.

    Raises:
      UserError: the network cannot be exported, or ranges are missing and there is no
        generator.
    """
    if generator_params is None or not lacks_quantizers(small):
        return make_integer_ready(small)
    generate = make_sample_images(settings.quantization, teacher, generator_params)
    batches = max(1, settings.baselines.batches)
    return make_integer_ready(small, map(generate, range(batches)))


def measure_mode(
    small: QuantizedNetwork,
    data: EvalData,
    teacher_logits: Float32[np.ndarray, "n k"],
    batch_size: int,
    name: str,
) -> dict[str, Any]:
    """Returns top1, correct, agreement and kl of a quantized network.

    Args:
      small: the network.
      data: images to evaluate on.
      teacher_logits: the teacher's on them.
      batch_size: images at once over all devices.
      name: of the network, for the progress line.
    """
    logits = predict(
        logits_of(small.network),
        small.variables,
        data.images,
        batch_size=batch_size,
        normalisation=small.record.normalisation,
        name=name,
    )
    accuracy = measure_accuracy(logits, data.labels)
    return {
        "top1": accuracy.top1,
        "correct": accuracy.correct,
        **measure_fidelity(logits, teacher_logits)._asdict(),
    }


def stated_accuracy(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what a manifest says of `results.json`; None without images.

    {images, float, quantized, integer_ready}: their number, and top-1 in percent.
    """
    if "n" not in results:
        return None
    top1 = {name: results[name]["top1"] for name in ("quantized", "integer_ready")}
    return {"images": results["n"], "float": results["teacher"]["top1"], **top1}


def write_deployment(
    ready: IntegerReady,
    teacher: Classifier,
    accuracy: Mapping[str, Any] | None,
    folder: Path,
) -> dict[str, Any]:
    """Writes the files into an export's folder, and returns what its manifest says.

    Files of the same names are replaced.

    Args:
      ready: the network as integer kernels compute it.
      teacher: the float network.
      accuracy: of `stated_accuracy`.
      folder: of the export.

    Raises:
      UserError: onnx is not installed, or the teacher has an operation that cannot be
        exported.
    """
    manifest = load_manifest(folder)
    # First, so that a manifest never describes files of another network.
    manifest.pop(DEPLOYMENT, None)
    _write(folder, manifest)
    description = {**write_files(ready, teacher, folder), "accuracy": accuracy}
    _write(folder, {**manifest, DEPLOYMENT: description})
    logging.info("%s: %s", folder, sizes_in_words(description))
    return description


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
