"""What real images give: the end that samples of a generator are to come near.

  python -m tests.benchmarks.acq_real_images --weights FILE --images NPZ \
      [--bits 3 4] [--seed 1] [--steps 2400] [--compare WORKDIR ...]

The student of `acq_r20_cifar10`, with its losses, ranges, rates and steps, learns from
the second half of the images, which data-free quantization forbids, and is evaluated on
the first half. `--compare` evaluates exports of other runs on that half too. Attention
is measured as a run's `results.json` measures that of its samples.
"""

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers

from acq.accuracy import (
    logits_of,
    measure_accuracy,
    measure_fidelity,
    predict,
)
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData, Rows
from acq.datasets.opening import open_eval_data
from acq.diagnosis.sample_measures import spread_in_class
from acq.export import load_quantized
from acq.kernels.attention import attention_center
from acq.quantization.parts import generator_parts, student_parts
from acq.quantization.settings import QuantizationSettings
from acq.quantization.states import quantize_state, student_variables
from acq.quantization.student_layers import quant_layers
from acq.samples.conditions import Conditions
from acq.samples.generator import Generator
from acq.samples.observation import observe
from acq.tasks.check import check
from acq.tasks.settings import task_settings
from acq.teacher.opening import open_teacher
from acq.training.losses import attention_cosine, entropy
from acq.training.train_step import make_quantize_step
from common.devices import pmap_frozen_step, replicate, shard_batch, to_host
from common.progress import Progress
from common.report import format_table
from common.typing import PyTree
from configs.acq_r20_cifar10 import get_config


class RealImages(nn.Module):
    """In the generator's place: each latent picks one of the images."""

    shape: tuple[int, ...]
    axis_name: str | None = None

    @nn.compact
    def __call__(self, conditions: Conditions) -> jax.Array:
        images = self.param("images", initializers.zeros, self.shape)
        # A normal number's place among all normal numbers is uniform.
        place = self.shape[0] * jax.scipy.stats.norm.cdf(conditions.latent[:, 0])
        return images[place.astype(jnp.int32)]


def half(data: EvalData, start: int, stop: int) -> EvalData:
    """The images from one place to another."""
    places = np.arange(start, stop)
    return dataclasses.replace(
        data, images=data.images[places], labels=data.labels[places]
    )


def teach(run: QuantizationSettings, teacher: Classifier, images: Rows) -> PyTree:
    """The student's variables after the recipe's steps on these images."""
    parts = generator_parts(run, teacher, alone=False)
    pixels = images[np.arange(len(images))]
    # No Generator, but called as one.
    parts = parts._replace(generator=cast(Generator, RealImages(pixels.shape)))
    x = teacher.record.normalisation.normalise(jnp.asarray(pixels, jnp.float32) / 255)
    state = replicate(quantize_state(run, teacher, {"images": x}))
    step = pmap_frozen_step(
        make_quantize_step(parts, student_parts(run, teacher), generator_learns=False)
    )
    frozen = replicate(teacher.variables)
    steps, size = run.train.steps, run.train.batch_size
    with Progress("student of real images", steps, "steps") as progress:
        for number in range(steps):
            draw = np.arange(number * size, (number + 1) * size, dtype=np.uint32)
            state, metrics = step(frozen, state, shard_batch({"draw": draw}))
            jax.block_until_ready(metrics)
            progress.update(1)
    return student_variables(teacher, to_host(state))


def measure_attention(
    run: QuantizationSettings, teacher: Classifier, data: EvalData, batches: int = 20
) -> str:
    """What the teacher sees in real images, as a run's diagnosis has it of samples."""
    size = run.train.batch_size
    parts = generator_parts(run, teacher, alone=False)

    @jax.jit
    def look(images, label):
        x = teacher.record.normalisation.normalise(images.astype(jnp.float32) / 255)
        evaluated, trained = (
            observe(teacher.network, teacher.variables, x, label, train=train)
            for train in (False, True)
        )
        center = attention_center(evaluated.attention, parts.loss.power)
        cosine = attention_cosine(evaluated.attention, trained.attention)
        return cosine, center, entropy(evaluated.logits)

    found = [
        look(data.images[places], data.labels[places])
        for places in np.arange(batches * size).reshape(batches, size)
    ]
    cosine, center, entropies = map(np.concatenate, zip(*found, strict=True))
    spread = spread_in_class(center, data.labels[: len(center)])
    return f"attention of {len(center):,} images: cosine {np.mean(cosine):.3f} " + (
        f"between modes, spread of centres in a class {spread:.3f}, "
        f"entropy of the teacher {np.mean(entropies):.3f}"
    )


def main() -> None:
    """Teaches one student of each number of bits and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[3])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of the student; the recipe's")
    parser.add_argument("--compare", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    rows, middle = [], 0
    for bits in options.bits:
        config = get_config("acq")
        config.quantizer.weight_bits = config.quantizer.activation_bits = bits
        config.teacher.weights = options.weights
        config.eval.path = options.images
        config.seed = options.seed
        if options.steps:
            config.train.duration = f"{options.steps} steps"
        check(config)
        settings = task_settings(config)
        run = settings.quantization
        teacher = open_teacher(settings.teacher, Path(), seed=run.seed)
        data = open_eval_data(settings.evaluation, teacher.record)
        assert data is not None
        middle = len(data) // 2
        shown = half(data, 0, middle)
        look = functools.partial(
            predict,
            images=shown.images,
            batch_size=settings.evaluation.batch_size,
            normalisation=teacher.record.normalisation,
        )
        expected = look(logits_of(teacher.network), teacher.variables)
        found = {}
        if bits == options.bits[0]:
            found["teacher, float"] = expected
            print(measure_attention(run, teacher, data))
            for workdir in options.compare:
                loaded = load_quantized(workdir / "export")
                logits = look(logits_of(loaded.network), loaded.variables)
                found[workdir.name] = logits
        student = teacher.with_layers(quant_layers(run.quantizer, teacher))
        variables = teach(run, teacher, half(data, middle, len(data)).images)
        found[f"real images, W{bits}A{bits}"] = look(logits_of(student), variables)
        rows += [
            (
                name,
                measure_accuracy(x, shown.labels).top1,
                *measure_fidelity(x, expected),
            )
            for name, x in found.items()
        ]
    print(
        format_table(
            ["student", "top-1 %", "as teacher %", "KL"],
            rows,
            digits=(0, 2, 2, 4),
            title=f"the first {middle:,} images",
        )
    )


if __name__ == "__main__":
    main()
