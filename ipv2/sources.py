"""From a config to the slices that a run trains, validates and tests on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from common.config import ConfigDict
from common.dataset import load_split, prepare
from common.devices import is_first_process, wait_for_all
from common.errors import UserError
from ipv2 import settings
from ipv2.datasets.pair_builder import SPLITS
from ipv2.datasets.paired_folders import PairedFolders, paired_folders_config
from ipv2.datasets.phantom import Phantom, phantom_config
from ipv2.datasets.sample_ct import SampleUnavailable
from ipv2.datasets.simulated_pairs import SimulatedPairs, simulated_pairs_config

# Of the sample CT: from the bases, free of the liver's dome, to below the shoulders.
LUNG_SLICES = (12, 50)


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


class Sources(NamedTuple):
    """What a run sees.

    Attributes:
      names: of the datasets in it.
      train: records to train on.
      val: to look at during training.
      test: to report on.
    """

    names: tuple[str, ...]
    train: Joined
    val: Joined
    test: Joined


def open_sources(config: ConfigDict) -> Sources:
    """Returns the splits of the config's datasets; builds them first if need be.

    Args:
      config: a checked IPv2 config.

    Raises:
      UserError: the user's folders are wrong, or no embedded dataset can be had.
    """
    builders: dict[str, tfds.core.DatasetBuilder] = {}
    for name, create in _builders(config).items():
        try:
            builder = create()
            if is_first_process():
                prepare(builder)
        except SampleUnavailable as error:
            if len(config.data.embedded) == 1:
                raise
            logging.warning("going on without %s: %s", name, error)
            continue
        builders[name] = builder
    wait_for_all("datasets")
    splits = {
        split: Joined(
            {
                name: load_split(builder, split)
                for name, builder in builders.items()
                if split in builder.info.splits
            }
        )
        for split in SPLITS
    }
    for split, source in splits.items():
        logging.info("%s: %d slices of %s", split, len(source), ", ".join(builders))
    if not len(splits["train"]):
        raise UserError("config.data: no slice to train on; see the lines above")
    return Sources(tuple(builders), **splits)


def _builders(
    config: ConfigDict,
) -> dict[str, Callable[[], tfds.core.DatasetBuilder]]:
    data, cache = config.data, Path(config.data.cache)
    reading = settings.read_options(config)
    if data.root:
        return {
            "paired_folders": lambda: PairedFolders(
                config=paired_folders_config(
                    data.root,
                    reading=reading,
                    match=data.match,
                    seed=config.seed,
                    fractions=tuple(data.split),
                    by_slice=data.split_by == "slice",
                ),
                data_dir=cache,
            )
        }
    simulation = {"noise": settings.dose_params(config), "seed": config.seed}
    if data.normal_dose:
        return {
            "simulated_pairs": lambda: SimulatedPairs(
                config=simulated_pairs_config(
                    data.normal_dose,
                    reading=reading,
                    fractions=tuple(data.split),
                    **simulation,
                ),
                data_dir=cache,
            )
        }
    embedded = {
        "sample_ct": lambda: SimulatedPairs(
            config=simulated_pairs_config(
                "sample_ct",
                slices=LUNG_SLICES,
                fractions=tuple(data.split),
                **simulation,
            ),
            data_dir=cache,
        ),
        "phantom": lambda: Phantom(
            config=phantom_config(
                size=data.phantom_size,
                patients=tuple(data.phantom_patients),
                slices=data.phantom_slices,
                **simulation,
            ),
            data_dir=cache,
        ),
    }
    return {name: embedded[name] for name in data.embedded}


def training_record(shape: tuple[int, ...]) -> Callable[[dict[str, Any]], dict]:
    """Returns what makes a training example of a record: its arrays, checked.

    Args:
      shape: (c, h, w) that every stack must have, so that they can be batched.
    """

    def transform(record: dict[str, Any]) -> dict[str, Any]:
        if record["lq"].shape != shape:
            raise UserError(
                f"{_text(record['name'])}: slices of {record['lq'].shape[1:]} pixels, "
                f"others are {shape[1:]}; all slices of a training set have one size. "
                "Resample these, or train on them alone."
            )
        return {key: record[key] for key in ("lq", "gt", "spacing_mm", "draw")}

    return transform


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
