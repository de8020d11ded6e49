"""What the builders of pairs from files share: names and metadata.

A dataset on disk belongs to one state of its sources: the configuration's name ends in
a fingerprint of all files' names, sizes and times and of all options. A changed file or
option gives another name, and so another build; the old one stays until it is removed.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import tensorflow_datasets as tfds
from absl import logging

from common.errors import UserError
from ipv2.ct_io import Skipped, Volume, describe_skipped
from ipv2.datasets import pair
from ipv2.datasets.places import recorded

Config = TypeVar("Config", bound=tfds.core.BuilderConfig)


class PairBuilder(
    tfds.core.GeneratorBasedBuilder, Generic[Config], skip_registration=True
):
    """A builder whose configuration is made by a function, not known by a name.

    `info.metadata` holds `source`; `places` and `sha256`, see `places`; `skipped`,
    volumes that could not be used, and `unused`, files that are none, each as [path,
    reason] pairs; and `warnings`.
    """

    CONFIG: ClassVar[type[tfds.core.BuilderConfig]]
    HAS_TRUTH: ClassVar[bool]

    def _create_builder_config(self, builder_config: Config, version: Any) -> Config:
        # TFDS would warn of a "custom data configuration" here; all of ours are.
        del version
        return builder_config

    @property
    def _config(self) -> Config:
        config: Any = self.builder_config
        if not isinstance(config, self.CONFIG):
            raise ValueError(
                f"{self.name}: config comes from {self.name}_config(...), got "
                f"{config!r}."
            )
        return config

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.name} of {self._config.name}",
            features=pair.pair_features(has_truth=self.HAS_TRUTH),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _recorded(
        self, split: str, records: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Numbers the records; the metadata keep what they are."""
        yield from recorded(self.info.metadata, split, records)

    def _keep_left_out(
        self, skipped: Iterable[Skipped], unused: Iterable[Skipped]
    ) -> None:
        """Puts what was left out so far into the metadata, each path once."""
        for key, items in (("skipped", skipped), ("unused", unused)):
            by_path = {str(item.path): item.reason for item in items}
            self.info.metadata[key] = [list(item) for item in sorted(by_path.items())]

    def _check_unchanged(self, fingerprint: str) -> None:
        """Raises UserError if the sources' state is no longer the configuration's.

        Args:
          fingerprint: of the configuration, now.
        """
        if not self._config.name.endswith(fingerprint):
            raise UserError(
                f"{self.info.metadata['source']}: files changed while the dataset was "
                "built. Run it again when they are at rest."
            )

    def _post_download_and_prepare_hook(self) -> None:
        report(self)


def skipped_of(
    builder: tfds.core.DatasetBuilder, key: str = "skipped"
) -> list[Skipped]:
    """What a built dataset left out; [] for one that is not of files.

    Args:
      builder: of the dataset.
      key: 'skipped' for volumes, 'unused' for other files.
    """
    listed = builder.info.metadata.get(key, ())
    return [Skipped(path=Path(path), reason=reason) for path, reason in listed]


def report(builder: tfds.core.DatasetBuilder) -> None:
    """Logs what a built dataset left out and warns of."""
    metadata = builder.info.metadata
    for warning in metadata["warnings"]:
        logging.warning("%s: %s", metadata["source"], warning)
    for key in ("unused", "skipped"):
        if listed := skipped_of(builder, key):
            said = describe_skipped(listed, word=key)
            logging.warning("%s: %s", metadata["source"], said)


def known_spacing(volume: Volume) -> tuple[float, float] | None:
    """(row, column) in mm, or None if the file does not say."""
    return volume.spacing_mm[1:] if volume.spacing_known else None


def named(config: Config, source: str, fingerprint: str) -> Config:
    """The configuration, its name made of its source's and a fingerprint."""
    stem = re.sub(r"[^\w.-]", "_", Path(source).name) or "root"
    config.name = f"{stem}-{fingerprint}"
    return config


def options_of(config: tfds.core.BuilderConfig) -> dict[str, Any]:
    """A configuration's own fields, without those that TFDS gives to all."""
    inherited = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
    options = dataclasses.asdict(config)
    return {key: value for key, value in options.items() if key not in inherited}


def fingerprint_of(options: Mapping[str, Any], *sources: Path) -> str:
    """16 hex digits of options and of every source file's name, size and time, now.

    Args:
      options: anything that JSON holds.
      sources: files, or folders with all below them, links followed; hidden files do
        not count. A header stands for all files beside it, one of which is its data.
    """
    state: list[Any] = [sorted(options.items())]
    for source in sources:
        for path in sorted(_files_of(source)):
            stat = path.stat()
            relative = path.relative_to(source.parent).as_posix()
            state.append((relative, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def _files_of(source: Path) -> Iterator[Path]:
    """The files that a source is made of; hidden ones are not."""
    if source.is_file():
        beside = source.suffix.lower() in _HEADERS
        paths = source.parent.iterdir() if beside else [source]
        yield from (path for path in paths if _counts(path))
        return
    seen = set()
    for folder, below, _ in os.walk(source, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:  # a link back, or a second one
            below.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (path for path in Path(folder).iterdir() if _counts(path))


_HEADERS = (".mhd", ".nhdr", ".nrrd")
"""Of files whose values may lie in another file."""


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")
