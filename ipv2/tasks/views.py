"""The slices that a report shows: their images are made again, as they were measured.

An evaluation keeps numbers alone. So the few slices to show pass once more through the
same functions, in batches of the same size.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from common.config import ConfigDict
from ipv2.measures.evaluation import INPUT, MakeImages, middle_slice, prepared_batches
from ipv2.report.numbers import DatasetNumbers, joined_numbers
from ipv2.report.report import View
from ipv2.report.viewed_slices import (
    MOST_PIXELS,
    Choice,
    SeenSlice,
    Wanted,
    choose_slices,
    which_fit,
)
from ipv2.tasks.outputs import JudgedSlices
from ipv2.tasks.references import KEYS, evenly, preparation
from ipv2.tasks.sources import Joined
from ipv2.tasks.strengths import Strength, make_filtered
from ipv2.training.stacks import Stacks

# What references are called among the images of a slice.
_REFERENCES = {
    "truth": "truth",
    "gt": "normal dose (gt)",
    "v1": "IPv1's test label",
    "v2": "IPv2's test label",
}
_GT = "normal dose (gt), not aligned"
# Input, output and reference.
_FEWEST_IMAGES = 3


class Shown(NamedTuple):
    """Outputs to show side by side.

    Attributes:
      name: of the network; '' if there is no other.
      runs: results by the name of the output.
      source: the slices held out.
      channels: neighbouring slices that the network sees.
      make_outputs: makes the outputs by name from a prepared batch.
    """

    name: str
    runs: Mapping[str, Mapping[str, Any]]
    source: Joined | JudgedSlices
    channels: int
    make_outputs: MakeImages


class Views(NamedTuple):
    """What a report shows.

    Attributes:
      views: slices with their images.
      left_out: what there is no room for, in words; '' if there is room for all.
    """

    views: list[View]
    left_out: str


class _Group(NamedTuple):
    """The slices of a data set to show, and the images of each."""

    shown: Shown
    numbers: DatasetNumbers
    choices: Sequence[Choice]
    rule: str
    names: Sequence[str]
    pixels: int

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (self.shown.name, self.numbers.name)))


def views_of(
    shown: Sequence[Shown], config: ConfigDict, most: int = MOST_PIXELS
) -> Views:
    """Returns worst, median and best slice of every data set, as many as have room.

    Args:
      shown: outputs of each network.
      config: a checked IPv2 config, of which `evaluate` and `purify` count.
      most: pixels of all images together.
    """
    groups = [group for one in shown for group in _groups(one, config, most)]
    wanted = [
        Wanted(number, rank, len(group.names) * group.pixels)
        for number, group in enumerate(groups)
        for rank in range(len(group.choices))
    ]
    fits = iter(which_fit(wanted, most))
    views, missing = [], []
    for group in groups:
        kept = [choice for choice in group.choices if next(fits)]
        if not kept or len(group.names) < _FEWEST_IMAGES:
            missing.append(group.title)
            continue
        views.append(
            View(
                title=group.title,
                numbers=group.numbers,
                slices=list(_seen(group, kept, config)),
                note=_note(group, kept),
            )
        )
    left = f"No slices are shown of {'; '.join(missing)}: {_ROOM}" if missing else ""
    return Views(views, left)


_ROOM = "the page stays below 15 MB."


def _note(group: _Group, kept: Sequence[Choice]) -> str:
    told = [group.rule]
    if len(kept) < len(group.choices):
        left = [one.role for one in group.choices if one not in kept]
        told.append(f"Not shown: {', '.join(left)}; {_ROOM}")
    dropped = [name for name in _names(group.numbers) if name not in group.names]
    if dropped:
        told.append(f"Images not shown: {', '.join(dropped)}; {_ROOM}")
    return " ".join(told)


def _groups(shown: Shown, config: ConfigDict, most: int) -> Iterator[_Group]:
    """Yields the slices to show of every data set."""
    for numbers in joined_numbers(shown.runs):
        chosen = choose_slices(numbers)
        place = _places(shown, numbers.name, config)[chosen.choices[0].index]
        pixels = math.prod(np.shape(shown.source[place]["lq"]))
        names = _fitting(numbers, most // pixels)
        yield _Group(shown, numbers, chosen.choices, chosen.rule, names, pixels)


def _places(shown: Shown, dataset: str, config: ConfigDict) -> list[int]:
    """Returns the places of the slices that were measured, in the order of the rows."""
    chosen = set(evenly(range(len(shown.source)), config.evaluate.slices))
    places = shown.source.places_by_dataset()[dataset]
    return [place for place in places if place in chosen]


def _names(numbers: DatasetNumbers) -> list[str]:
    """Returns all images of a slice, in the order to show."""
    label = numbers.block["label"]
    beside = {"truth": [_REFERENCES["v2"]], "gt": []}.get(label, [_GT])
    return [*numbers.images, *beside, _REFERENCES[label]]


def _fitting(numbers: DatasetNumbers, count: int) -> list[str]:
    """Returns so many images: filters go first, then other references and outputs."""
    reference = _REFERENCES[numbers.block["label"]]
    first = [INPUT, *numbers.outputs[:1], reference]
    beside = [one for one in _names(numbers) if one not in numbers.images]
    order = dict.fromkeys([*first, *numbers.outputs, *beside, *numbers.filters])
    kept = list(order)[:count]
    return [name for name in _names(numbers) if name in kept]


def _seen(
    group: _Group, kept: Sequence[Choice], config: ConfigDict
) -> Iterator[SeenSlice]:
    """Yields the slices with their images, made again."""
    shown, label = group.shown, group.numbers.block["label"]
    places = _places(shown, group.numbers.name, config)
    stacks = Stacks(shown.source, shown.channels)
    records = [stacks[places[choice.index]] for choice in kept]
    strengths = {
        name: Strength(**one)
        for name, one in group.numbers.block.get("strengths", {}).items()
        if name in group.names
    }
    filtered = make_filtered(strengths)
    batches = prepared_batches(
        ({key: one[key] for key in KEYS if key in one} for one in records),
        config.evaluate.batch_size,
        preparation(label, config),
    )
    number = 0
    for batch, count in batches:
        images = {
            INPUT: middle_slice(batch),
            **filtered(batch),
            **shown.make_outputs(batch),
            _REFERENCES[label]: batch["reference"],
        }
        if "label" in batch:
            images[_REFERENCES["v2"]] = batch["label"]
        hu = {k: np.asarray(v, np.float32) for k, v in images.items()}
        lung, spacing = jax.device_get((batch["regions"]["lung"], batch["spacing_mm"]))
        for i in range(count):
            record, choice = records[number], kept[number]
            of_slice = {name: values[i] for name, values in hu.items()}
            of_slice[_GT] = np.asarray(record["gt"][shown.channels // 2], np.float32)
            pixel_mm = float(np.sqrt(np.prod(spacing[i])))
            yield SeenSlice(
                index=choice.index,
                role=choice.role,
                images={name: of_slice[name] for name in group.names},
                reference=_REFERENCES[label],
                lung=np.asarray(lung[i]),
                pixel_mm=pixel_mm if math.isfinite(pixel_mm) else None,
            )
            number += 1
