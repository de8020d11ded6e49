"""Measures what a generator's samples are like: centres, attention, BNS, variety.

Fresh samples are made, shown to the teacher in both modes and measured; nothing
learns. They come in pairs of one class and centre, whether or not the loss has a term
of pairs, so that runs with and without it are compared on the same.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from acq.diagnosis import sample_measures
from acq.diagnosis.diagnosis import Diagnosis, Shown
from acq.kernels.attention import attention_center
from acq.samples.generator import Generator
from acq.samples.observation import AttentionForm, observe
from acq.samples.shifts import shift_images
from acq.training import losses
from acq.training.step_parts import GeneratorParts, Sampling
from common.devices import (
    AXIS,
    per_process,
    pmap_eval,
    replicate,
    shard_batch,
    to_host,
)
from common.typing import PyTree

SHOWN_CLASSES = 10
SHOWN_SAMPLES = 4
"""Of a class: two pairs."""


class _Subject(NamedTuple):
    """What is measured; all hashable."""

    generator: Generator
    teacher: nn.Module
    sampling: Sampling
    black: tuple[float, ...]
    attention: AttentionForm
    power: float | int


def measure_samples(
    parts: GeneratorParts,
    generator_params: PyTree,
    teacher_variables: PyTree,
    *,
    first: int,
    count: int,
    batch_size: int,
) -> Diagnosis:
    """Returns measures of fresh samples; all processes must call it together.

    Args:
      parts: generator and teacher, whose batch is that of the axis `AXIS`, the form of
        attention, and how conditions are drawn.
      generator_params: of the generator.
      teacher_variables: `params` and `batch_stats`; only read.
      first: number of the first sample, even. Training's are fresh from its number of
        steps times its batch size on.
      count: samples, rounded up to whole batches. Of 10 classes, 320 are enough to
        tell a dead class.
      batch_size: samples at once over all devices, even. A sample depends on its
        batch, through its statistics, so it should be training's.

    Raises:
      ValueError: numbers that are odd or out of range, or a batch that the devices do
        not share evenly.
    """
    last = first + -(-count // max(batch_size, 1)) * batch_size
    if first % 2 or batch_size % 2 or count < 1 or not 0 <= first < last <= 2**32:
        raise ValueError(
            "samples come in pairs with numbers below 2**32: got the first number "
            f"{first}, {count} samples, {batch_size} at once; accepted: even numbers, "
            "at least one batch of at least 2"
        )
    subject = _Subject(
        parts.generator,
        parts.teacher,
        dataclasses.replace(parts.sampling, paired=True),
        parts.black,
        parts.loss.attention,
        parts.loss.power,
    )
    step = pmap_eval(_make_measure(subject))
    variables = replicate({"generator": generator_params, "teacher": teacher_variables})
    found, statistics = [], []
    shown: dict[int, list[tuple]] = {}
    for start in range(first, last, batch_size):
        measured, bns, pictures = step(variables, _draws(start, batch_size))
        measured, bns = _of_first_device((measured, bns))
        # By number, whatever the order of the devices is.
        order = np.argsort(measured["draw"])
        measured["squared"] = measured["squared"][:, order]
        measured = {name: values[order] for name, values in measured.items()}
        _add_shown(shown, measured, order, pictures)
        found.append(measured)
        statistics.append(bns)
    return _summary(found, statistics, shown, parts.sampling.classes)


@functools.cache
def _make_measure(
    subject: _Subject,
) -> Callable[[PyTree, Any], tuple[dict[str, Array], dict[str, Array], Any]]:
    """Returns `measure(variables, shard) -> (measured, BNS, (images, attention))`.

    All of it is of the joined batch, on every device, and of whole samples; BNS is of
    them as the generator's loss shifts them. Measured are of every sample its
    number `draw`, `label`, `requested` and `achieved` centre, whether it is
    `recognised` and `finite`, the teacher's `entropy`, `cosine` of its attention in
    both modes, and `squared`, its mean squared difference from every sample of the
    batch.
    """

    def measure(variables: PyTree, shard: Any) -> Any:
        conditions = subject.sampling.draw(shard["draw"])
        images = jnp.asarray(
            subject.generator.apply({"params": variables["generator"]}, conditions)
        )
        see = functools.partial(
            observe,
            subject.teacher,
            variables["teacher"],
            label=conditions.label,
            attention=subject.attention,
        )
        modes = {"eval": False, "train": True}
        views = {mode: see(images, train=train) for mode, train in modes.items()}
        compared = views
        if subject.sampling.shift:
            moved = shift_images(images, conditions.shift, subject.black)
            compared = {mode: see(moved, train=train) for mode, train in modes.items()}
        view, train_view = views["eval"], views["train"]
        running = variables["teacher"]["batch_stats"]
        bns = {
            f"{mode}_{form}": losses.statistics_loss(found.statistics, running, form)
            for mode, found in compared.items()
            for form in ("squared", "relative")
        }
        pictures = jax.lax.all_gather((images, view.attention), AXIS, tiled=True)
        finite = jnp.all(jnp.isfinite(view.logits), axis=-1) & jnp.all(
            jnp.isfinite(images), axis=(1, 2, 3)
        )
        measured = {
            "draw": shard["draw"],
            "label": conditions.label,
            "requested": conditions.center,
            "achieved": attention_center(view.attention, subject.power),
            "recognised": finite & (jnp.argmax(view.logits, -1) == conditions.label),
            "finite": finite,
            "entropy": losses.entropy(view.logits),
            "cosine": losses.attention_cosine(view.attention, train_view.attention),
            "squared": _squared_distances(images, pictures[0]),
        }
        return jax.lax.all_gather(measured, AXIS, tiled=True), bns, pictures

    return measure


def _squared_distances(
    some: Float[Array, "n h w c"], every: Float[Array, "b h w c"]
) -> Float[Array, "n b"]:
    """Mean over pixels of the squared difference; exactly 0 for equal images."""
    return jax.lax.map(
        lambda one: jnp.mean(jnp.square(every - one[None]), axis=(1, 2, 3)), some
    )


def _draws(start: int, batch_size: int) -> dict[str, np.ndarray]:
    """This process's numbers of the batch that starts at a number, by device."""
    own = per_process(batch_size, "train.batch_size")
    first = start + own * jax.process_index()
    return dict(shard_batch({"draw": np.arange(first, first + own, dtype=np.uint32)}))


def _of_first_device(tree: PyTree) -> PyTree:
    """On the host: every device holds the same."""
    return jax.tree.map(lambda leaf: leaf[0], to_host(tree))


def _add_shown(
    shown: dict[int, list[tuple]],
    measured: dict[str, np.ndarray],
    order: np.ndarray,
    pictures: Any,
) -> None:
    """Adds samples of the first classes, the first of each; fetches only those wanted.

    Args:
      shown: what `Shown` holds of every sample, by class.
      measured: of a batch, in order.
      order: places of its samples among the pictures.
      pictures: images and attention, on the devices.
    """
    taken = collections.Counter({label: len(rows) for label, rows in shown.items()})
    wanted = []
    for i, label in enumerate(measured["label"].tolist()):
        has_row = label in taken or len(taken) < SHOWN_CLASSES
        if has_row and taken[label] < SHOWN_SAMPLES:
            taken[label] += 1
            wanted.append((i, label))
    if not wanted:
        return
    images, attention = _of_first_device(pictures)
    for i, label in wanted:
        others = (measured[key][i] for key in ("requested", "achieved", "recognised"))
        row = (label, images[order[i]], attention[order[i]], *others)
        shown.setdefault(label, []).append(row)


def _summary(
    found: list[dict[str, np.ndarray]],
    statistics: list[dict[str, np.float32]],
    shown: dict[int, list[tuple]],
    classes: int,
) -> Diagnosis:
    """The diagnosis of all batches."""
    every = {name: np.concatenate([x[name] for x in found]) for name in found[0]}
    label, requested, achieved = (
        every[name] for name in ("label", "requested", "achieved")
    )
    rows = [row for _, of_class in sorted(shown.items()) for row in of_class]
    return Diagnosis(
        finite=float(np.mean(every["finite"])),
        requested=requested,
        achieved=achieved,
        center_spread=sample_measures.spread_in_class(achieved, label),
        requested_spread=sample_measures.spread_in_class(requested, label),
        attention_cosine=float(np.mean(every["cosine"])),
        teacher_entropy=float(np.mean(every["entropy"])),
        statistics={
            name: float(np.mean([batch[name] for batch in statistics]))
            for name in statistics[0]
        },
        drawn=np.bincount(label, minlength=classes),
        recognised=np.bincount(label[every["recognised"]], minlength=classes),
        variety=sample_measures.variety(
            np.stack([batch["squared"] for batch in found]),
            np.stack([batch["label"] for batch in found]),
            classes,
        ),
        shown=Shown(*map(np.stack, zip(*rows, strict=True))),
    )
