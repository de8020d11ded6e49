"""Trains the teacher of the embedded default, a small ResNet, on the digits.

It replaces the user's pretrained weights. It is trained once, exported to
`workdir/teacher`, and then loaded. No later phase uses the training digits.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optax
from absl import logging

from acq.accuracy import logits_of, measure_accuracy, predict
from acq.classifier import Classifier, Normalisation, Record
from acq.datasets.digits import CLASSES, IMAGE_SIZE, Digits, Split, load_digits
from acq.layers.float import FloatLayers
from acq.teacher.loading import load_export
from acq.teacher.settings import create_teacher
from acq.teacher.train_step import create_state, make_train_step
from acq.teacher.untrained import untrained_variables
from common.checkpoint import MANIFEST, Checkpoints, export_variables, load_manifest
from common.devices import (
    AXIS,
    is_first_process,
    per_process,
    pmap_step,
    to_host,
    wait_for_all,
)
from common.errors import UserError
from common.loop import Plan, fit
from common.pipeline import Record as Example
from common.pipeline import train_batches
from common.run import Run
from common.schedules import create_schedule
from common.typing import PyTree
from common.writers import MetricsWriter

NETWORK = "resnet8"
_STEPS_BETWEEN_LINES = 20
_STEPS_BETWEEN_CHECKPOINTS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsSettings:
    """Settings of the digits' teacher; `config.digits` in messages.

    Attributes:
      width: channels of the network's first stage.
      train_steps: number of steps.
      batch_size: digits per step, over all devices.
      learning_rate: highest value.
      shift: largest shift of training digits, in pixels.
    """

    width: int
    train_steps: int
    batch_size: int
    learning_rate: float | int
    shift: int


@dataclasses.dataclass(frozen=True)
class _Records:
    """A split as records for `train_batches`."""

    split: Split

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.split.images[index], "label": self.split.labels[index]}


def prepare_teacher(
    settings: DigitsSettings, workdir: Path, *, seed: int
) -> Classifier:
    """Returns the digits' classifier; trains it, or loads an earlier export.

    An interrupted training resumes from its checkpoint. All processes must call this
    together.

    Args:
      settings: Of the training.
      workdir: Of the run; the teacher is in its folder `teacher`.
      seed: Of the initial weights, and of the digits' order and shifts.

    Raises:
      UserError: The folder holds a damaged teacher or one with other settings, or the
        digits are not installed.
      RunFailed: The loss was not finite.
      Interrupted: A signal came; the checkpoint is written.
    """
    folder = workdir / "teacher"
    trained_with = {"seed": seed, **dataclasses.asdict(settings)}
    if not (folder / MANIFEST).exists():
        _train_and_export(settings, folder, seed, trained_with)
        wait_for_all("teacher")
    found = load_manifest(folder).get("trained_with")
    if found != json.loads(json.dumps(trained_with)):
        raise UserError(
            f"{folder}: holds a teacher trained with {found}, this command asks for "
            f"{trained_with}. Give the same seed and config.digits, or another "
            "--workdir."
        )
    return load_export(folder)


def measure_normalisation(split: Split) -> Normalisation:
    """Returns mean and standard deviation of the images in [0, 1], to four digits."""
    mean, std = (
        round(float(measure(split.images / 255.0)), 4) for measure in (np.mean, np.std)
    )
    return Normalisation(mean=(mean,), std=(std,))


def make_shift(most: int, *, seed: int) -> Callable[[Example], Example]:
    """Returns a transform that shifts a record's image randomly, with black moved in.

    Args:
      most: Largest shift in each direction, in pixels.
      seed: Of the shifts; a shift depends only on the image's number in the stream.
    """

    def shift(record: Example) -> Example:
        image = record["image"]
        height, width, channels = image.shape
        rng = np.random.default_rng((seed, int(record["draw"])))
        row, column = rng.integers(0, 2 * most + 1, 2)
        padded = np.zeros((height + 2 * most, width + 2 * most, channels), image.dtype)
        padded[most : most + height, most : most + width] = image
        moved = padded[row : row + height, column : column + width]
        return {"image": moved, "label": record["label"]}

    return shift


def _train_and_export(
    settings: DigitsSettings, folder: Path, seed: int, trained_with: Mapping[str, Any]
) -> None:
    digits = load_digits()
    begun_with = {"seed": seed, "digits": dataclasses.asdict(settings)}
    run = Run(config=begun_with, workdir=folder)
    run.refuse_other()
    run.begin()
    record = Record(
        name=NETWORK,
        options={"width": settings.width},
        classes=CLASSES,
        image_size=IMAGE_SIZE,
        normalisation=measure_normalisation(digits.train),
    )
    variables = _train(settings, digits, record, folder, seed)
    logits = predict(
        logits_of(create_teacher(record)),
        variables,
        digits.test.images,
        batch_size=settings.batch_size,
        normalisation=record.normalisation,
        name="teacher, test digits",
    )
    accuracy = measure_accuracy(logits, digits.test.labels)
    logging.info("teacher: %d of %d test digits are right", *accuracy)
    if is_first_process():
        manifest = {
            "method": "acq",
            "classifier": record.to_json(),
            "trained_with": dict(trained_with),
            "top1": accuracy.top1,
        }
        export_variables(folder, variables, manifest)


def _train(
    settings: DigitsSettings, digits: Digits, record: Record, folder: Path, seed: int
) -> PyTree:
    """Returns the trained variables, on the host."""
    network = create_teacher(record)
    optimizer = _optimizer(settings.learning_rate, settings.train_steps)
    state = create_state(untrained_variables(network, record, seed), optimizer)
    step = make_train_step(
        network.clone(layers=FloatLayers(axis_name=AXIS)),
        optimizer,
        record.normalisation,
    )
    plan = Plan(
        total=settings.train_steps,
        log=_STEPS_BETWEEN_LINES,
        evaluate=settings.train_steps,
        save=_STEPS_BETWEEN_CHECKPOINTS,
    )
    with Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        state = fit(
            state,
            pmap_step(step),
            train_batches(
                _Records(digits.train),
                seed=seed,
                batch_size=per_process(settings.batch_size, "digits.batch_size"),
                transform=make_shift(settings.shift, seed=seed),
            ),
            plan,
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(folder, after_step=after),
            name="teacher",
        )
    return to_host(state.variables)


@functools.cache
def _optimizer(peak: float | int, steps: int) -> optax.GradientTransformation:
    """Returns Adam with a cosine schedule; the same object for the same settings."""
    schedule = create_schedule(
        "cosine", peak=peak, total_steps=steps, warmup_steps=steps // 5
    )
    return optax.adam(schedule, b2=0.99)
