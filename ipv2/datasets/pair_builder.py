"""What the builders of pairs from files share: names, splits by patient, metadata.

A dataset on disk belongs to one state of its sources: the configuration's name ends in
a fingerprint of all files' names, sizes and times and of all options. A changed file or
option gives another name, and so another build; the old one stays until it is removed.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import tensorflow_datasets as tfds
from absl import logging

from common.errors import UserError
from ipv2.ct_io import Skipped, describe_skipped
from ipv2.datasets import pair

SPLITS = ("train", "val", "test")

Config = TypeVar("Config", bound=tfds.core.BuilderConfig)


class PairBuilder(
    tfds.core.GeneratorBasedBuilder, Generic[Config], skip_registration=True
):
    """A builder whose configuration is made by a function, not known by a name.

    `info.metadata` holds `source`, `patients` (of each split), `skipped` ([path,
    reason] pairs) and `warning` ('' or that the splits share patients).
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

    def _describe(
        self, *, source: str, patients: Mapping[str, Iterable[str]], warning: str
    ) -> None:
        """Puts into the metadata who is in which split, and what to beware of."""
        self.info.metadata.update(
            source=source,
            patients={split: sorted(set(who)) for split, who in patients.items()},
            warning=warning,
        )
        if warning:
            logging.warning("%s: %s", source, warning)

    def _record_skipped(self, skipped: Iterable[Skipped]) -> None:
        self.info.metadata["skipped"] = [
            [str(item.path), item.reason] for item in skipped
        ]

    def _post_download_and_prepare_hook(self) -> None:
        metadata = self.info.metadata
        listed = [Skipped(path=Path(p), reason=r) for p, r in metadata["skipped"]]
        if listed:
            logging.warning("%s: %s", metadata["source"], describe_skipped(listed))


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
      sources: files, or folders with all below them; hidden files do not count.
    """
    state: list[Any] = [sorted(options.items())]
    for source in sources:
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                stat = path.stat()
                relative = path.relative_to(source.parent).as_posix()
                state.append((relative, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises UserError unless the shares of train, val, test make a whole."""
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"fractions of train, val, test add up to 1, none below 0; got {fractions}."
        )


def split_patients(
    patients: Sequence[str], *, seed: int, fractions: Sequence[float]
) -> dict[str, list[str]]:
    """Patients dealt out to train, val, test: whole persons, by hash, none empty.

    Patients are ordered by the hash of seed and name, so the result depends on neither
    the order nor the place of the files. Each split with a fraction above 0 has at
    least one; the rest follows the fractions.

    Raises:
      UserError: there are fewer patients than splits.
    """
    used = [s for s, f in zip(SPLITS, fractions, strict=True) if f > 0]
    if len(patients) < len(used):
        raise UserError(
            f"{len(patients)} patients ({', '.join(sorted(patients))}) for "
            f"{len(used)} splits ({', '.join(used)}), which are made by patient. Add "
            "patients (a folder each below lq/ and gt/), set fractions of 0, name them "
            "with `patients`, or ask for a split by slices (`by_slice`), which leaks."
        )
    ordered = sorted(
        patients, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest()
    )
    largest = SPLITS[max(range(len(SPLITS)), key=lambda index: fractions[index])]
    result: dict[str, list[str]] = {}
    for split, fraction in zip(SPLITS, fractions, strict=True):
        if split != largest:
            count = max(1, round(fraction * len(patients))) if fraction > 0 else 0
            result[split], ordered = ordered[:count], ordered[count:]
    result[largest] = ordered
    return {split: sorted(result[split]) for split in SPLITS}
