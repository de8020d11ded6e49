"""Round to nearest: what quantization gives without any training, to compare with.

The teacher's weights are rounded as they are, and the activations' ranges come from

    noise          standard normal images
    bn_statistics  the teacher's BatchNorm parameters, no image
    generated      the generator's images
    untrained      the same images, as GDFQ observes them: a moving average of smallest
                   and largest values, whatever `range_method` is. What its student
                   would be before a first step beside the finished generator
    real           images of the evaluation data, which data-free quantization forbids:
                   what the others would have if they were perfect

Any other range is of the kind that `config.quantizer.range_method` names, so that the
rows differ in their images alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from acq.accuracy import logits_of, predict, top1
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.layers.observed import (
    ranges_as_observed,
    ranges_from_images,
    ranges_from_statistics,
)
from acq.tasks import settings
from common.config import ConfigDict
from common.devices import is_first_process
from common.files import write_atomically
from common.typing import PyTree


def statistics_ranges(config: ConfigDict, teacher: Classifier) -> PyTree:
    """Returns the ranges that the teacher's BatchNorm parameters alone give."""
    layers = settings.range_layers(config, teacher, config.quantizer.range_method)
    count = config.train.batch_size
    return ranges_from_statistics(
        teacher.network,
        layers,
        teacher.variables,
        teacher.record.image_shape(count),
        # "rbg" compiles several times faster than the default, with as many layers.
        jax.random.key(config.seed, impl="rbg"),
    )


def measure_baselines(
    config: ConfigDict,
    teacher: Classifier,
    data: EvalData,
    generate: Callable[[int], jax.Array],
    path: Path,
) -> dict[str, Any]:
    """Returns {name: {top1, correct}} of `config.baselines.run`.

    Args:
      config: checked.
      teacher: to be rounded.
      data: to evaluate on.
      generate: from the number of a batch to images of the generator.
      path: a JSON file; what it holds is not measured again.
    """
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    layers = settings.range_layers(config, teacher, config.quantizer.range_method)
    student = teacher.with_layers(settings.quant_layers(config, teacher))
    sources: Mapping[str, Callable[[], Iterator[jax.Array]]] = {
        "noise": lambda: _noise(config, teacher),
        "generated": lambda: map(generate, range(config.baselines.batches)),
        "real": lambda: _real(config, teacher, data),
    }
    for name in config.baselines.run:
        if name in found:
            continue
        if name == "bn_statistics":
            ranges = statistics_ranges(config, teacher)
        elif name == "untrained":
            ranges = ranges_as_observed(
                student,
                teacher.variables,
                sources["generated"](),
                decay=float(config.quantizer.decay),
            )
        else:
            ranges = ranges_from_images(
                teacher.network, layers, teacher.variables, sources[name]()
            )
        logits = predict(
            logits_of(student),
            {**teacher.variables, "ranges": ranges},
            data.images,
            batch_size=config.eval.batch_size,
            normalisation=teacher.record.normalisation,
            name=f"rounded, ranges from {name}",
        )
        accuracy = top1(logits, data.labels)
        found[name] = {"top1": accuracy.top1, "correct": accuracy.correct}
        logging.info("rounded, ranges from %s: %.2f %%", name, accuracy.top1)
        if is_first_process():
            write_atomically(path, json.dumps(found, indent=2) + "\n")
    return found


def _noise(config: ConfigDict, teacher: Classifier) -> Iterator[jax.Array]:
    shape = teacher.record.image_shape(config.train.batch_size)
    for batch in range(config.baselines.batches):
        rng = jax.random.fold_in(jax.random.key(config.seed), batch)
        yield jax.random.normal(rng, shape)


def _real(
    config: ConfigDict, teacher: Classifier, data: EvalData
) -> Iterator[jax.Array]:
    """The first images there are, in whole batches or in one that is smaller."""
    size = min(config.train.batch_size, len(data))
    for batch in range(min(config.baselines.batches, len(data) // size)):
        images = data.images[np.arange(batch * size, (batch + 1) * size)]
        yield teacher.record.normalisation.normalise(
            jnp.asarray(images, jnp.float32) / 255.0
        )
