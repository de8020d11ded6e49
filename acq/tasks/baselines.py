"""Round to nearest: quantization without any training, to compare with.

A baseline rounds the teacher's weights as they are. The ranges of its activations come
from

    noise          standard normal images
    bn_statistics  the teacher's BatchNorm parameters, without images
    generated      the generator's images
    untrained      the same images, observed as in GDFQ: a moving average of smallest
                   and largest values, whatever `range_method` is. GDFQ's student would
                   have these ranges before its first step beside a finished generator
    real           images of the evaluation data, which data-free quantization forbids:
                   the others would have these ranges if their images were perfect

The quantizer's `range_method` chooses all ranges but those of `untrained`. So these
baselines differ in their images alone.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float32

from acq.accuracy import count_one_right, logits_of, measure_accuracy, predict
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.layers.observed import ranges_as_observed, ranges_from_images
from acq.quantization.settings import QuantizationSettings
from acq.quantization.student_layers import (
    quant_layers,
    range_layers,
    statistics_ranges,
)
from common.devices import is_first_process
from common.files import write_atomically
from common.typing import PyTree

BASELINES = ("noise", "bn_statistics", "generated", "untrained", "real")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineSettings:
    """The baselines of a run; `config.baselines` in messages.

    Attributes:
      run: some of `BASELINES`.
      batches: the number of batches of images that ranges are taken from.
    """

    run: tuple[str, ...]
    batches: int


def measure_baselines(
    baselines: BaselineSettings,
    settings: QuantizationSettings,
    teacher: Classifier,
    data: EvalData,
    generate: Callable[[int], jax.Array],
    quantized: Float32[np.ndarray, "n k"],
    path: Path,
    *,
    batch_size: int,
) -> dict[str, Any]:
    """Returns {name: {top1, correct, ...}} of `baselines.run`.

    `only_baseline_right` and `only_quantized_right` count the images that only one of
    baseline and quantized network has right. Files of older versions lack them.

    Args:
      baselines: the baselines to measure.
      settings: the settings of the quantization that they are compared with.
      teacher: the network to round.
      data: the images to evaluate on.
      generate: makes images of the generator, given the number of a batch.
      quantized: logits of the trained student, to compare with.
      path: a JSON file; the baselines in it are not measured again.
      batch_size: images evaluated at once over all devices.
    """
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    student = teacher.with_layers(quant_layers(settings.quantizer, teacher))
    sources: Mapping[str, Callable[[], Iterator[jax.Array]]] = {
        "noise": lambda: _noise(baselines.batches, settings, teacher),
        "generated": lambda: map(generate, range(baselines.batches)),
        "real": lambda: _real(baselines.batches, settings, teacher, data),
    }
    for name in baselines.run:
        if name in found:
            continue
        ranges = _ranges(name, settings, teacher, sources)
        logits = predict(
            logits_of(student),
            {**teacher.variables, "ranges": ranges},
            data.images,
            batch_size=batch_size,
            normalisation=teacher.record.normalisation,
            name=f"rounded, ranges from {name}",
        )
        accuracy = measure_accuracy(logits, data.labels)
        one_right = count_one_right(logits, quantized, data.labels)
        found[name] = {
            "top1": accuracy.top1,
            "correct": accuracy.correct,
            "only_baseline_right": one_right.first,
            "only_quantized_right": one_right.second,
        }
        logging.info("rounded, ranges from %s: %.2f %%", name, accuracy.top1)
        if is_first_process():
            write_atomically(path, json.dumps(found, indent=2) + "\n")
    return found


def _ranges(
    name: str,
    settings: QuantizationSettings,
    teacher: Classifier,
    sources: Mapping[str, Callable[[], Iterator[jax.Array]]],
) -> PyTree:
    """The activations' ranges of a baseline."""
    if name == "bn_statistics":
        return statistics_ranges(settings, teacher)
    if name == "untrained":
        return ranges_as_observed(
            teacher.with_layers(quant_layers(settings.quantizer, teacher)),
            teacher.variables,
            sources["generated"](),
            decay=float(settings.quantizer.decay),
        )
    layers = range_layers(settings.quantizer, teacher)
    return ranges_from_images(
        teacher.network, layers, teacher.variables, sources[name]()
    )


def _noise(
    batches: int, settings: QuantizationSettings, teacher: Classifier
) -> Iterator[jax.Array]:
    shape = teacher.record.image_shape(settings.train.batch_size)
    for batch in range(batches):
        rng = jax.random.fold_in(jax.random.key(settings.seed), batch)
        yield jax.random.normal(rng, shape)


def _real(
    batches: int, settings: QuantizationSettings, teacher: Classifier, data: EvalData
) -> Iterator[jax.Array]:
    """The first images of the data, in whole batches or in one smaller batch."""
    size = min(settings.train.batch_size, len(data))
    for batch in range(min(batches, len(data) // size)):
        images = data.images[np.arange(batch * size, (batch + 1) * size)]
        yield teacher.record.normalisation.normalise(
            jnp.asarray(images, jnp.float32) / 255.0
        )
