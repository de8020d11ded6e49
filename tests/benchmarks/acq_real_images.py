"""Trains a student on real images: the accuracy that generated samples aim at.

    python -m tests.benchmarks.acq_real_images --weights FILE --images NPZ \
        [--recipe acq_r20_cifar10] [--bits 3 4] [--seed 1] [--steps 2400] \
        [--set KEY=VALUE ...] [--compare WORKDIR ...] [--smoke]

The student of the recipe, with its losses, ranges, rates and steps, learns from the
second half of the images. Data-free quantization forbids this. The first half evaluates
it, and with `--compare` the exports of other runs too. Attention is measured
as a run measures that of its samples for `results.json`.
"""

import argparse
import ast
import dataclasses
import functools
import importlib
import tempfile
from collections.abc import Sequence
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
from common.config import ConfigDict
from common.devices import pmap_frozen_step, replicate, shard_batch, to_host
from common.progress import Progress
from common.text_table import format_table
from common.typing import PyTree
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.benchmarks.shared.stand_ins import (
    write_images,
    write_quantized,
    write_weights,
)


class RealImages(nn.Module):
    """Stands for the generator: each latent picks one of the images."""

    shape: tuple[int, ...]
    axis_name: str | None = None

    @nn.compact
    def __call__(self, conditions: Conditions) -> jax.Array:
        images = self.param("images", initializers.zeros, self.shape)
        # The distribution function of a normal number is uniform.
        place = self.shape[0] * jax.scipy.stats.norm.cdf(conditions.latent[:, 0])
        return images[place.astype(jnp.int32)]


def half(data: EvalData, start: int, stop: int) -> EvalData:
    """Returns the images from place `start` to `stop`, exclusive."""
    places = np.arange(start, stop)
    return dataclasses.replace(
        data, images=data.images[places], labels=data.labels[places]
    )


def teach(run: QuantizationSettings, teacher: Classifier, images: Rows) -> PyTree:
    """Returns the student's variables after the recipe's steps on these images."""
    parts = generator_parts(run, teacher, alone=False)
    pixels = images[np.arange(len(images))]
    # It is no Generator but has the same call.
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
    """Returns a line on the teacher's attention, measured as a run measures samples."""
    size = run.train.batch_size
    parts = generator_parts(run, teacher, alone=False)

    @jax.jit
    def measure(variables, images, label):
        x = teacher.record.normalisation.normalise(images.astype(jnp.float32) / 255)
        evaluated, trained = (
            observe(teacher.network, variables, x, label, train=train)
            for train in (False, True)
        )
        center = attention_center(evaluated.attention, parts.loss.power)
        cosine = attention_cosine(evaluated.attention, trained.attention)
        return cosine, center, entropy(evaluated.logits)

    found = [
        measure(teacher.variables, data.images[places], data.labels[places])
        for places in np.arange(batches * size).reshape(batches, size)
    ]
    cosine, center, entropies = map(np.concatenate, zip(*found, strict=True))
    spread = spread_in_class(center, data.labels[: len(center)])
    return f"attention of {len(center):,} images: cosine {np.mean(cosine):.3f} " + (
        f"between modes, spread of centres in a class {spread:.3f}, "
        f"entropy of the teacher {np.mean(entropies):.3f}"
    )


def main(command_line: Sequence[str] | None = None) -> None:
    """Teaches a student of each number of bits and prints the table."""
    parser = create_parser(__doc__)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[3])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of the student; the recipe's")
    parser.add_argument("--compare", type=Path, nargs="*", default=[])
    parser.add_argument("--recipe", default="acq_r20_cifar10", help="of configs/")
    parser.add_argument("--set", nargs="*", default=[], help="key=value of the config")
    with tempfile.TemporaryDirectory() as folder:
        print_table(parse(parser, command_line, lambda: smoke(Path(folder))))


def smoke(folder: Path) -> list[str]:
    """Writes weights, images and an export; returns the arguments of a run on them."""
    weights, images = folder / "weights.npz", folder / "images.npz"
    write_weights(weights)
    write_images(images, 200)
    write_quantized(folder / "other", seed=0)
    return [
        *(f"--weights={weights}", f"--images={images}", "--bits=4", "--steps=2"),
        *("--set", "teacher.depth=8", "train.batch_size=8"),
        f"--compare={folder / 'other'}",
    ]


def config_of(options: argparse.Namespace, bits: int) -> ConfigDict:
    """Returns the recipe's config for a number of bits."""
    config = importlib.import_module(f"configs.{options.recipe}").get_config("acq")
    config.quantizer.weight_bits = config.quantizer.activation_bits = bits
    config.teacher.weights = options.weights
    config.eval.path = options.images
    config.eval.resize = 0.0
    config.seed = options.seed
    for change in options.set:
        key, _, value = change.partition("=")
        # A number as a number; all else, such as "800 steps", is a text.
        number = value.replace(".", "", 1).isdigit()
        config.update_from_flattened_dict(
            {key: ast.literal_eval(value) if number else value}
        )
    if options.steps:
        config.train.duration = f"{options.steps} steps"
    check(config)
    return config


def print_table(options: argparse.Namespace) -> None:
    """Teaches a student of each number of bits and prints the table."""
    rows, middle = [], 0
    for bits in options.bits:
        settings = task_settings(config_of(options, bits))
        run = settings.quantization
        teacher = open_teacher(settings.teacher, Path(), seed=run.seed)
        data = open_eval_data(settings.evaluation, teacher.record)
        assert data is not None
        middle = len(data) // 2
        evaluated = half(data, 0, middle)
        predict_logits = functools.partial(
            predict,
            images=evaluated.images,
            batch_size=settings.evaluation.batch_size,
            normalisation=teacher.record.normalisation,
        )
        expected = predict_logits(logits_of(teacher.network), teacher.variables)
        found = {}
        if bits == options.bits[0]:
            found["teacher, float"] = expected
            print(measure_attention(run, teacher, data))
            for workdir in options.compare:
                loaded = load_quantized(workdir / "export")
                logits = predict_logits(logits_of(loaded.network), loaded.variables)
                found[workdir.name] = logits
        student = teacher.with_layers(quant_layers(run.quantizer, teacher))
        variables = teach(run, teacher, half(data, middle, len(data)).images)
        found[f"real images, W{bits}A{bits}"] = predict_logits(
            logits_of(student), variables
        )
        rows += [
            (
                name,
                measure_accuracy(x, evaluated.labels).top1,
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
