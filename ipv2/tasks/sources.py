"""From a config to the slices that a run trains, validates and tests on."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from common.config import ConfigDict
from common.dataset import is_prepared, load_split, prepare
from common.devices import is_first_process, wait_for_all
from common.errors import UserError
from ipv2.ct_io import Skipped, describe_skipped
from ipv2.datasets.pair_builder import report, skipped_of
from ipv2.datasets.paired_folders import (
    PairedFolders,
    paired_folders_config,
    split_sources,
)
from ipv2.datasets.places import Place, View, most_common_size, places_of
from ipv2.datasets.sample_ct import SampleUnavailable
from ipv2.datasets.simulated_pairs import SimulatedPairs, simulated_pairs_config
from ipv2.datasets.splits import SPLITS
from ipv2.tasks import settings

# Slices of the sample CT, from the lungs' bases above the liver's dome to below the
# shoulders.
LUNG_SLICES = (12, 50)
Builder = tfds.core.DatasetBuilder


class Joined:
    """Several datasets, one after the other; each record gets its `dataset`."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        """Keeps the parts, by the dataset's name; reads nothing."""
        self._names, self._parts = list(parts), list(parts.values())
        self._starts = np.cumsum([0] + [len(part) for part in self._parts])

    def __len__(self) -> int:
        """Records in all parts."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record at a place counted through all parts."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        record = self._parts[part][int(index - self._starts[part])]
        return {**record, "dataset": self._names[part]}

    def places_by_dataset(self) -> dict[str, range]:
        """Returns the places of each dataset's records."""
        edges = [int(edge) for edge in self._starts]
        return {
            name: range(start, stop)
            for name, start, stop in zip(
                self._names, edges[:-1], edges[1:], strict=True
            )
        }


class Sources(NamedTuple):
    """The data of a run.

    Attributes:
      names: names of the datasets.
      train: records to train on.
      val: records to evaluate during training.
      test: records to report on.
      data: a description of each dataset, for `run_data`.
      unavailable: embedded datasets that cannot be fetched; the run goes on without.
    """

    names: tuple[str, ...]
    train: Joined
    val: Joined
    test: Joined
    data: dict[str, Any]
    unavailable: tuple[str, ...]

    @property
    def held_out(self) -> Joined:
        """Records to report on: test, or val where test is empty."""
        return self.test if len(self.test) else self.val


def open_sources(config: ConfigDict) -> Sources:
    """Returns the splits of the config's datasets; builds those that are missing.

    Args:
      config: a checked IPv2 config.

    Raises:
      UserError: the user's folders are wrong, no embedded dataset can be fetched, or
        data were left out and `config.strict` is True.
    """
    builders, unavailable = _prepared(config)
    skipped = [item for builder in builders.values() for item in skipped_of(builder)]
    views: dict[str, dict[str, View]] = {split: {} for split in SPLITS}
    data = {}
    for name, builder in builders.items():
        own = _views(builder, config)
        own["train"], unfit = _trainable(own["train"], config)
        skipped += unfit
        if unfit:
            logging.warning("train: %s", describe_skipped(unfit))
        for split, view in own.items():
            views[split][name] = view
        data[name] = {
            "fingerprint": builder.builder_config.name,
            "patients": {split: view.patients for split, view in own.items()},
            "records": {split: len(view) for split, view in own.items()},
            "sha256": dict(builder.info.metadata["sha256"]),
        }
    splits = {
        split: Joined({name: view for name, view in of.items() if len(view)})
        for split, of in views.items()
    }
    for split, source in splits.items():
        logging.info("%s: %d slices of %s", split, len(source), ", ".join(views[split]))
    if config.strict and skipped:
        raise UserError(
            f"config.strict=True: {describe_skipped(skipped)}\nMend or remove these, "
            "or give --config.strict=False to go on without them."
        )
    return Sources(tuple(builders), **splits, data=data, unavailable=unavailable)


def fingerprints(config: ConfigDict) -> dict[str, str]:
    """Returns a fingerprint of each dataset's options and files.

    It covers names, sizes and times of the files. Nothing is built or read.

    Args:
      config: a checked IPv2 config.

    Raises:
      UserError: a folder is missing.
    """
    return {
        name: create().builder_config.name for name, create in _builders(config).items()
    }


def _prepared(
    config: ConfigDict,
) -> tuple[dict[str, Builder], tuple[str, ...]]:
    """The builders of the datasets on disk, and the names of unavailable datasets."""
    creators = _builders(config)
    builders = {}
    for name, create in creators.items() if is_first_process() else ():
        builder = create()
        there_before = is_prepared(builder)
        try:
            prepare(builder)
        except SampleUnavailable as error:
            if len(creators) == 1:
                raise
            logging.warning("going on without %s: %s", name, error)
            continue
        if there_before and isinstance(builder, PairedFolders | SimulatedPairs):
            report(builder)
        builders[name] = builder
    wait_for_all("datasets")
    if not is_first_process():
        # Made only now: a builder reads its dataset's state when it is made.
        made = {name: create() for name, create in creators.items()}
        builders = {name: one for name, one in made.items() if is_prepared(one)}
    return builders, tuple(name for name in creators if name not in builders)


def _views(builder: Builder, config: ConfigDict) -> dict[str, View]:
    """The splits of a dataset."""
    if isinstance(builder, PairedFolders):
        return split_sources(builder, settings.deal(config))
    sources = {split: load_split(builder, split) for split in builder.info.splits}
    any_source = next(iter(sources.values()))  # an empty view needs one too
    return {
        split: View(
            sources.get(split, any_source), places_of(builder.info.metadata, split)
        )
        for split in SPLITS
    }


def _trainable(view: View, config: ConfigDict) -> tuple[View, list[Skipped]]:
    """The slices that can be trained on together, and those that are left out.

    Raises:
      UserError: the pairs need the size of a pixel, and no slice has one.
    """
    unfit: list[Skipped] = []
    places: Sequence[Place] = view.places
    if settings.pair_params(config).needs_spacing:
        usable = [place for place in places if place.spacing_known]
        if places and not usable:
            raise UserError(f"{places[0].name}: {_NO_SPACING}.")
        unfit += [
            Skipped(path=Path(place.name), reason=_NO_SPACING)
            for place in places
            if not place.spacing_known
        ]
        places = usable
    if not places:
        return view.only(()), unfit
    usual = most_common_size(places)
    for place in places:
        if (place.rows, place.columns) != usual:
            reason = (
                f"{place.size}, the others have {usual[0]} x {usual[1]}; all slices of "
                "a training have one size. Resample these, or train on them alone"
            )
            unfit.append(Skipped(path=Path(place.name), reason=reason))
    fitting = [p for p in places if (p.rows, p.columns) == usual]
    return (view if not unfit else view.only(fitting)), unfit


_NO_SPACING = (
    "the size of a pixel is not known, which physical noise needs. Give it "
    "(config.data.pixel_mm=0.8, say), or another noise "
    "(config.purify.add_noise=reference or none)"
)


def _builders(config: ConfigDict) -> dict[str, Callable[[], Builder]]:
    """What makes each dataset of the config, by name; nothing is made yet."""
    if config.data.root:
        return {"paired_folders": lambda: _paired_folders(config)}
    if config.data.normal_dose:
        return {"simulated_pairs": lambda: _simulated_pairs(config)}
    return {
        name: functools.partial(_embedded, config, name)
        for name in config.data.embedded
    }


def _paired_folders(config: ConfigDict) -> Builder:
    data = config.data
    folders = paired_folders_config(
        data.root,
        reading=settings.read_options(config),
        match=data.match,
        name_pattern=data.name_pattern,
    )
    return PairedFolders(config=folders, data_dir=Path(data.cache))


def _simulated_pairs(config: ConfigDict) -> Builder:
    pairs = simulated_pairs_config(
        config.data.normal_dose,
        reading=settings.read_options(config),
        deal=settings.deal(config),
        noise=settings.dose_params(config),
        seed=config.seed,
    )
    return SimulatedPairs(config=pairs, data_dir=Path(config.data.cache))


def _embedded(config: ConfigDict, name: str) -> Builder:
    return settings.embedded_splits(config).builder(
        name,
        noise=settings.dose_params(config),
        phantom_size=config.data.phantom_size,
        cache=Path(config.data.cache),
    )


def require_even_slices(config: ConfigDict, channels: int) -> None:
    """Raises UserError if a network sees neighbours and gaps are allowed.

    Args:
      config: a checked IPv2 config.
      channels: slices that the network sees; 1 is the slice alone.
    """
    if channels > 1 and config.data.gaps == "allow":
        raise UserError(
            f"config.data.gaps: got 'allow', accepted: 'refuse' with a network that "
            f"sees {channels} neighbouring slices (config.model.channels), which have "
            "to be evenly spaced"
        )


def training_record(
    shape: tuple[int, ...], shrink: Sequence[int] = (1,), slices: int = 1
) -> Callable[[dict[str, Any]], dict]:
    """Returns a function from a record to the arrays of a training example.

    Args:
      shape: (c, h, w) that every stack must have; the function raises UserError on
        another one.
      shrink: n for means of n x n pixels, which have less noise. Steps take them in
        turn.
      slices: of a step, over all processes.
    """

    def transform(record: dict[str, Any]) -> dict[str, Any]:
        if record["lq"].shape != shape:
            raise UserError(
                f"{_text(record['name'])}: slices of {record['lq'].shape[1:]} pixels, "
                f"others are {shape[1:]}; all slices of a training set have one size. "
                "Resample these, or train on them alone."
            )
        n = shrink[int(record["draw"]) // slices % len(shrink)]
        images = {key: _shrunk(record[key], n) for key in ("lq", "gt")}
        spacing_mm = record["spacing_mm"] * np.float32(n)
        return images | {"spacing_mm": spacing_mm, "draw": record["draw"]}

    return transform


def _shrunk(stack: np.ndarray, n: int) -> np.ndarray:
    """Means of n x n pixels; rows and columns that fill no block are cut off."""
    if n == 1:
        return stack
    rows, columns = (side // n for side in stack.shape[1:])
    blocks = stack[:, : rows * n, : columns * n].reshape(-1, rows, n, columns, n)
    return blocks.mean(axis=(2, 4), dtype=np.float32)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
