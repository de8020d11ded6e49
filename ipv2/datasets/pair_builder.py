"""The common part of builders that read pairs from files: names and metadata.

A dataset on disk belongs to one state of its source files: the configuration's name
ends in a fingerprint of all files' names, sizes and times and of all options. A changed
file or option gives another name, and so a new build. Old builds stay until the user
removes them.
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
    """A builder whose configuration comes from a function, not from a list of names.

    `info.metadata` holds `source`; `places` and `sha256`, see `places`; `skipped`, the
    volumes that could not be used, and `unused`, the files that are no volumes, both as
    [path, reason] pairs; and `warnings`.
    """

    CONFIG: ClassVar[type[tfds.core.BuilderConfig]]
    HAS_TRUTH: ClassVar[bool]

    def _create_builder_config(self, builder_config: Config, version: Any) -> Config:
        # TFDS warns of a "custom data configuration" here, but all of ours are custom.
        del version
        return builder_config

    @property
    def _config(self) -> Config:
        config: Any = self.builder_config
        if not isinstance(config, self.CONFIG):
            raise ValueError(
                f"{self.name}: config must come from {self.name}_config(...), got "
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
        """Yields numbered records, and stores their places in the metadata."""
        yield from recorded(self.info.metadata, split, records)

    def _keep_left_out(
        self, skipped: Iterable[Skipped], unused: Iterable[Skipped]
    ) -> None:
        """Stores everything left out so far in the metadata, each path once."""
        for key, items in (("skipped", skipped), ("unused", unused)):
            by_path = {str(item.path): item.reason for item in items}
            self.info.metadata[key] = [list(item) for item in sorted(by_path.items())]

    def _check_unchanged(self, fingerprint: str) -> None:
        """Raises UserError if files changed after the configuration was made.

        Args:
          fingerprint: present fingerprint of the configuration.
        """
        if not self._config.name.endswith(fingerprint):
            raise UserError(
                f"{self.info.metadata['source']}: files changed while the dataset was "
                "being built. Run again when nothing changes them."
            )

    def _post_download_and_prepare_hook(self) -> None:
        report(self)


def skipped_of(
    builder: tfds.core.DatasetBuilder, key: str = "skipped"
) -> list[Skipped]:
    """Returns the files that a built dataset left out; [] for datasets without files.

    Args:
      builder: builder of the dataset.
      key: 'skipped' for volumes, 'unused' for other files.
    """
    listed = builder.info.metadata.get(key, ())
    return [Skipped(path=Path(path), reason=reason) for path, reason in listed]


def report(builder: tfds.core.DatasetBuilder) -> None:
    """Logs the warnings of a built dataset and the files that it left out."""
    metadata = builder.info.metadata
    for warning in metadata["warnings"]:
        logging.warning("%s: %s", metadata["source"], warning)
    for key in ("unused", "skipped"):
        if left_out := skipped_of(builder, key):
            text = describe_skipped(left_out, word=key)
            logging.warning("%s: %s", metadata["source"], text)


def known_spacing(volume: Volume) -> tuple[float, float] | None:
    """Returns (row, column) in mm, or None if the file does not state it."""
    return volume.spacing_mm[1:] if volume.spacing_known else None


def named(config: Config, source: str, fingerprint: str) -> Config:
    """Names the configuration by its source and a fingerprint, and returns it."""
    stem = re.sub(r"[^\w.-]", "_", Path(source).name) or "root"
    config.name = f"{stem}-{fingerprint}"
    return config


def options_of(config: tfds.core.BuilderConfig) -> dict[str, Any]:
    """Returns a configuration's own fields, without those inherited from TFDS."""
    inherited = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
    options = dataclasses.asdict(config)
    noise = options.get("noise", {})
    if noise.get("bowtie_mm") == 0.0:
        del noise["bowtie_mm"]  # data sets from before this option stay valid
    return {key: value for key, value in options.items() if key not in inherited}


def fingerprint_of(options: Mapping[str, Any], *sources: Path) -> str:
    """Returns 16 hex digits of the options and of all files' names, sizes and times.

    Args:
      options: values that JSON can hold.
      sources: files, or folders with everything below them. Links are followed, hidden
        files are ignored. A header stands for all files beside it, since one of them
        holds its values.
    """
    state: list[Any] = [sorted(options.items())]
    for source in sources:
        for path in sorted(_files_of(source)):
            stat = path.stat()
            relative = path.relative_to(source.parent).as_posix()
            state.append((relative, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def _files_of(source: Path) -> Iterator[Path]:
    """Yields the files of a source, without hidden ones."""
    if source.is_file():
        beside = source.suffix.lower() in _HEADERS
        paths = source.parent.iterdir() if beside else [source]
        yield from (path for path in paths if _counts(path))
        return
    seen = set()
    for folder, below, _ in os.walk(source, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:  # reached through another link before
            below.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (path for path in Path(folder).iterdir() if _counts(path))


_HEADERS = (".mhd", ".nhdr", ".nrrd")
"""Suffixes of headers whose values may be in another file."""


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")
