"""The strength of each filter on each data set, chosen apart from the test slices."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from common.config import ConfigDict
from ipv2.measures.evaluation import (
    MakeImages,
    Slices,
    middle_slice,
    prepared_batches,
)
from ipv2.measures.filters import FILTERS, Batch, choose_strength, noise_sd_hu
from ipv2.tasks.references import KEYS, Reference, evenly, preparation
from ipv2.tasks.sources import Joined, Sources
from ipv2.training.stacks import Stacks

_SLICES = 4


class Strength(NamedTuple):
    """How strong a filter is.

    Attributes:
      strength: in the filter's unit, see `measures.filters`.
      chosen_on: 'val' or 'train'; 'default' if nothing was there to choose on.
      n_slices: slices that it was chosen on.
      at_end: whether it is the weakest or the strongest that was tried: one beyond may
        be better.
    """

    strength: float
    chosen_on: str
    n_slices: int
    at_end: bool


def choose_strengths(
    sources: Sources, references: Mapping[str, Reference], config: ConfigDict
) -> dict[str, dict[str, Strength]]:
    """Returns {data set: {filter: strength}} of the data sets that are held out.

    The filters are those of `config.evaluate.filters`. A strength is chosen on at most
    four slices, evenly spread, of the data set's validation split, or of its training
    split if it has no validation split apart from the slices that are tested.

    Args:
      sources: the data of the run.
      references: of each data set.
      config: a checked IPv2 config.
    """
    return {
        name: _of_dataset(name, sources, references[name], config)
        for name in sources.held_out.places_by_dataset()
    }


def _of_dataset(
    name: str, sources: Sources, reference: Reference, config: ConfigDict
) -> dict[str, Strength]:
    filters = config.evaluate.filters
    if not filters:
        return {}
    split, source, places = _slices_to_choose_on(name, sources)
    if not places:
        logging.warning(
            "%s: no slice to choose the filters' strengths on; they have their "
            "defaults, %s",
            name,
            ", ".join(f"{one} {FILTERS[one].default:g}" for one in filters),
        )
        return {
            one: Strength(FILTERS[one].default, "default", 0, False) for one in filters
        }
    batches = _batches(source, places, reference, config)
    found = {}
    for one in filters:
        strength, at_end = choose_strength(one, batches)
        found[one] = Strength(strength, split, len(places), at_end)
        logging.info("%s: %s", name, described_strength(one, found[one]._asdict()))
    return found


def _slices_to_choose_on(
    name: str, sources: Sources
) -> tuple[str, Joined, Sequence[int]]:
    """Returns a split, its records and the places of those that are chosen."""
    splits = {"val": sources.val, "train": sources.train}
    if sources.held_out is sources.val:
        del splits["val"]
    for split, source in splits.items():
        places = source.places_by_dataset().get(name, ())
        if places:
            return split, source, evenly(places, _SLICES)
    return "default", sources.train, ()


def _batches(
    source: Joined, places: Sequence[int], reference: Reference, config: ConfigDict
) -> list[Batch]:
    stacks = Stacks(source, 1)
    records = (stacks[place] for place in places)
    prepared = prepared_batches(
        ({key: one[key] for key in KEYS if key in one} for one in records),
        config.evaluate.batch_size,
        preparation(reference.label, config),
    )
    return [
        Batch(
            np.asarray(middle_slice(batch)),
            np.asarray(batch["reference"]),
            np.asarray(_noise_hu(batch)),
            count,
        )
        for batch, count in prepared
    ]


def make_filtered(strengths: Mapping[str, Strength]) -> MakeImages:
    """Returns what makes the image of each filter from a prepared batch."""

    def make(batch: Slices) -> dict[str, Any]:
        if not strengths:
            return {}
        image, noise_hu = middle_slice(batch), _noise_hu(batch)
        return {
            name: FILTERS[name].apply(image, one.strength, noise_hu)
            for name, one in strengths.items()
        }

    return make


def _noise_hu(batch: Slices) -> Any:
    """Returns the noise of each slice that is denoised."""
    return noise_sd_hu(middle_slice(batch), batch["regions"]["body"])


def described_strength(name: str, one: Mapping[str, Any]) -> str:
    """Returns a filter's strength and how it was chosen, in words.

    Args:
      name: of the filter.
      one: its `Strength`, as a dictionary.
    """
    unit = "px" if name == "gaussian" else "x noise"
    text = f"{name} {one['strength']:g} {unit}"
    if one["chosen_on"] == "default":
        return f"{text} (default: no slices to choose on)"
    split = {"val": "validation", "train": "training"}[one["chosen_on"]]
    end = ", at an end of the range" if one["at_end"] else ""
    return f"{text} (chosen on {one['n_slices']} {split} slices{end})"
