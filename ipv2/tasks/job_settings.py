"""The settings that decide the results of the tasks simulate and purify.

They are all of a config that the work on a volume or a pair sees, but for batch sizes.
So two jobs are the same if their settings, their sources and the task's version are
equal; `terms` puts these together, and the record of a result holds them.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from common.config import ConfigDict
from common.nested import flatten
from ipv2.ct_io import Match, ReadOptions
from ipv2.kernels.photon_noise import DoseParams
from ipv2.purification.purify import PurifyParams
from ipv2.tasks.rules import RULES, SIMULATE_RULES
from ipv2.tasks.settings import purify_params, read_options, scanner_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSettings:
    """How the files of a task are read and written; `config.data` in messages.

    Attributes:
      reading: options of the reader.
      multi_frame: whether a DICOM series is written as one multi-frame file.
    """

    reading: ReadOptions
    multi_frame: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateSettings:
    """All of a config that decides what task simulate makes of a volume.

    Attributes:
      seed: seed of the noise.
      calibrate: whether the scanner is calibrated on each volume. Then of `noise` only
        the doses, the electronic variance and the views count.
      noise: the noise model, with both doses.
      files: how volumes are read and written.
    """

    seed: int
    calibrate: bool
    noise: DoseParams
    files: FileSettings

    def by_key(self) -> dict[str, Any]:
        """Returns all but `files` by config key, as records hold it."""
        doses = {f"noise.{key}": key for key in ("dose", "input_dose")}
        return _by_key(self, SIMULATE_RULES, doses)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PurifySettings:
    """All of a config that decides what task purify makes of a pair.

    Attributes:
      seed: seed of the noise.
      match: which slices belong together, by 'position' or by 'index'.
      purify: the purification.
      volume: whether its masks use the order of the slices; None: where slices have
        positions.
      files: how volumes are read and written.
    """

    seed: int
    match: Match
    purify: PurifyParams
    volume: bool | None
    files: FileSettings

    def by_key(self) -> dict[str, Any]:
        """Returns all but `files` by config key, as records hold it."""
        found = _by_key(self, RULES, {"match": "data.match", "purify.dose": "noise"})
        return found | {"config.purify.volume": self.volume}


def _by_key(
    settings: SimulateSettings | PurifySettings,
    keys: Collection[str],
    renamed: Mapping[str, str],
) -> dict[str, Any]:
    """The fields that a config sets; the others have the same value for all configs.

    Args:
      settings: the settings of a task.
      keys: all keys of the task's config.
      renamed: config keys of the fields that have other names, by field. Of a field
        with fields, the key of its section.
    """
    found = {}
    for field, value in flatten(dataclasses.asdict(settings)):
        key = field
        for name, other in renamed.items():
            if f"{field}.".startswith(f"{name}."):
                key = other + field.removeprefix(name)
        if key in keys:
            # In a config 0 stands for None.
            found[f"config.{key}"] = 0 if value is None else value
    return found


def simulate_settings(config: ConfigDict) -> SimulateSettings:
    """Returns the settings of a checked config of the recipe `simulate`."""
    scanner = scanner_of(config)
    return SimulateSettings(
        seed=config.seed,
        calibrate=config.calibrate,
        noise=DoseParams(dose=config.dose, input_dose=config.input_dose, **scanner),
        files=file_settings(config),
    )


def purify_settings(config: ConfigDict) -> PurifySettings:
    """Returns the settings of a checked config for task purify.

    Raises:
      ValueError: as `purify_params`.
    """
    return PurifySettings(
        seed=config.seed,
        match=config.data.match,
        purify=purify_params(config),
        volume=config.purify.volume,
        files=file_settings(config),
    )


def file_settings(config: ConfigDict) -> FileSettings:
    """Returns the settings of `config.data` for reading and writing files."""
    return FileSettings(
        reading=read_options(config), multi_frame=config.data.multiframe
    )
