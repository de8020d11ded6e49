"""Measures a generator's samples: centres, attention, BNS, variety.

The generator makes fresh samples and the teacher sees them in both modes; nothing
learns. Samples always come in pairs of one class and centre. So runs with and without
the term of pairs are compared on the same conditions.
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
from acq.diagnosis.diagnosis import Diagnosis, Examples
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

EXAMPLE_CLASSES = 10
EXAMPLES_PER_CLASS = 4
"""Two pairs."""


class _Subject(NamedTuple):
    """Parts of the measurement; all hashable."""

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
      parts: generator and teacher, with batches over the axis `AXIS`; the form of
        attention and the sampling.
      generator_params: of the generator.
      teacher_variables: `params` and `batch_stats`; only read.
      first: number of the first sample, even. Numbers from training steps times batch
        size on are fresh.
      count: samples, rounded up to whole batches. For 10 classes, 320 are enough to
        show a dead class.
      batch_size: samples at once over all devices, even. Use that of training, because
        a sample depends on the statistics of its batch.

    Raises:
      ValueError: numbers are odd or out of range, or the batch is not a multiple of the
        devices.
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
    examples: dict[int, list[tuple]] = {}
    for start in range(first, last, batch_size):
        measured, bns, pictures = step(variables, _draws(start, batch_size))
        measured, bns = _of_first_device((measured, bns))
        # Sorted by number, so that the order of the devices does not matter.
        order = np.argsort(measured["draw"])
        measured["squared"] = measured["squared"][:, order]
        measured = {name: values[order] for name, values in measured.items()}
        _add_examples(examples, measured, order, pictures)
        found.append(measured)
        statistics.append(bns)
    return _summary(found, statistics, examples, parts.sampling.classes)


@functools.cache
def _make_measure(
    subject: _Subject,
) -> Callable[[PyTree, Any], tuple[dict[str, Array], dict[str, Array], Any]]:
    """Returns `measure(variables, shard) -> (measured, BNS, pictures)`.

    `pictures` are images and their attention in evaluation and in training mode. Every
    device returns the results of the joined batch. Samples are unshifted, except
    for BNS, where they are shifted as in the generator's loss. `measured` has, for
    every sample, its number `draw`, `label`, the `requested` and `achieved` centre,
    whether it is `recognised` and `finite`, the teacher's `entropy`, the `cosine` of
    its attention in both modes, and `squared`, its mean squared difference from every
    sample of the batch.
    """

    def measure(variables: PyTree, shard: Any) -> Any:
        conditions = subject.sampling.draw(shard["draw"])
        images = jnp.asarray(
            subject.generator.apply({"params": variables["generator"]}, conditions)
        )
        observe_images = functools.partial(
            observe,
            subject.teacher,
            variables["teacher"],
            label=conditions.label,
            attention=subject.attention,
        )
        modes = {"eval": False, "train": True}
        views = {
            mode: observe_images(images, train=train) for mode, train in modes.items()
        }
        bns_views = views
        if subject.sampling.shift:
            moved = shift_images(images, conditions.shift, subject.black)
            bns_views = {
                mode: observe_images(moved, train=train)
                for mode, train in modes.items()
            }
        view, train_view = views["eval"], views["train"]
        running = variables["teacher"]["batch_stats"]
        bns = {
            f"{mode}_{form}": losses.statistics_loss(found.statistics, running, form)
            for mode, found in bns_views.items()
            for form in ("squared", "relative")
        }
        pictures = jax.lax.all_gather(
            (images, view.attention, train_view.attention), AXIS, tiled=True
        )
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
    """Returns mean squared differences over pixels; exactly 0 for equal images."""
    return jax.lax.map(
        lambda one: jnp.mean(jnp.square(every - one[None]), axis=(1, 2, 3)), some
    )


def _draws(start: int, batch_size: int) -> dict[str, np.ndarray]:
    """Returns this process's numbers of the batch that begins at `start`, by device."""
    own = per_process(batch_size, "train.batch_size")
    first = start + own * jax.process_index()
    return dict(shard_batch({"draw": np.arange(first, first + own, dtype=np.uint32)}))


def _of_first_device(tree: PyTree) -> PyTree:
    """Returns the tree of the first device, on the host; all devices hold the same."""
    return jax.tree.map(lambda leaf: leaf[0], to_host(tree))


def _add_examples(
    examples: dict[int, list[tuple]],
    measured: dict[str, np.ndarray],
    order: np.ndarray,
    pictures: Any,
) -> None:
    """Adds the first samples of the first classes; fetches pictures only if needed.

    Args:
      examples: fields of `Examples` for each sample, by class.
      measured: of a batch, sorted by number.
      order: indices of the batch's samples in the pictures.
      pictures: images and attention in both modes, on the devices.
    """
    taken = collections.Counter({label: len(rows) for label, rows in examples.items()})
    chosen = []
    for i, label in enumerate(measured["label"].tolist()):
        has_row = label in taken or len(taken) < EXAMPLE_CLASSES
        if has_row and taken[label] < EXAMPLES_PER_CLASS:
            taken[label] += 1
            chosen.append((i, label))
    if not chosen:
        return
    pictures = _of_first_device(pictures)
    keys = ("cosine", "requested", "achieved", "recognised")
    for i, label in chosen:
        shown = (values[order[i]] for values in pictures)
        row = (label, *shown, *(measured[key][i] for key in keys))
        examples.setdefault(label, []).append(row)


def _summary(
    found: list[dict[str, np.ndarray]],
    statistics: list[dict[str, np.float32]],
    examples: dict[int, list[tuple]],
    classes: int,
) -> Diagnosis:
    """Returns the diagnosis of all batches."""
    every = {name: np.concatenate([x[name] for x in found]) for name in found[0]}
    label, requested, achieved = (
        every[name] for name in ("label", "requested", "achieved")
    )
    rows = [row for _, of_class in sorted(examples.items()) for row in of_class]
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
        examples=Examples(*map(np.stack, zip(*rows, strict=True))),
    )
