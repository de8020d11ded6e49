"""The slices held out with the outputs that other software made of them.

Outputs lie in the folder `config.evaluate.outputs`. They belong to the volumes of
root/lq (see `ct_io.counterparts`), and are measured as those of a network are: the same
slices, references and filters.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from common.config import ConfigDict
from common.errors import UserError
from common.progress import tracked
from ipv2.ct_io import (
    ReadOptions,
    Skipped,
    describe_skipped,
    list_volumes,
    paired_paths,
    read_volume,
    slice_number,
)
from ipv2.ct_io.counterparts import find_counterparts, match_output
from ipv2.tasks import settings
from ipv2.tasks.sources import Joined

_NOT_HELD_OUT = (
    "its patient is not held out (config.data.split; (0.0, 0.0, 1.0) holds out all)"
)
_NO_OUTPUT = "no output belongs to it"


class _Slice(NamedTuple):
    """A record and the slice of an output that belongs to it."""

    place: int
    path: Path
    index: int


class JudgedSlices:
    """The records that have an output; each gets it as `output`, (h, w) HU."""

    def __init__(
        self, source: Joined, chosen: Sequence[_Slice], options: ReadOptions
    ) -> None:
        """Reads nothing yet.

        Args:
          source: the records that are held out, of one data set.
          chosen: those to judge.
          options: how outputs are read.
        """
        self._source, self._chosen, self._options = source, chosen, options
        self._open: tuple[Path, np.ndarray] | None = None

    def __len__(self) -> int:
        """Slices that are judged."""
        return len(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record of a slice, with its output."""
        one = self._chosen[index]
        if self._open is None or self._open[0] != one.path:
            self._open = one.path, read_volume(one.path, self._options).hu
        return {**self._source[one.place], "output": self._open[1][one.index]}

    def places_by_dataset(self) -> dict[str, range]:
        """The places of the only data set."""
        return {name: range(len(self)) for name in self._source.places_by_dataset()}


class Judged(NamedTuple):
    """What can be judged, and what cannot.

    Attributes:
      slices: with their outputs.
      report: for results: `folder`, `n_volumes`, `n_slices`, `n_slices_without_output`,
        `n_not_held_out` and `skipped`, [{path, reason}].
    """

    slices: JudgedSlices
    report: dict[str, Any]


def open_outputs(config: ConfigDict, held_out: Joined) -> Judged:
    """Returns the slices held out that have an output.

    Args:
      config: a checked IPv2 config with `data.root` and `evaluate.outputs`.
      held_out: the records that are held out.

    Raises:
      UserError: no output can be judged, or something is skipped and `config.strict` is
        True.
    """
    folder, options = Path(config.evaluate.outputs), settings.read_options(config)
    found, pattern = list_volumes(folder), config.data.name_pattern
    pairs = paired_paths(config.data.root, name_pattern=pattern).pairs
    volumes = {pair.name: pair.lq for pair in pairs}
    matched = find_counterparts(volumes, found.items, name_pattern=pattern)
    if found.unused:  # records of task denoise, for instance
        logging.info("%s: %s", folder, describe_skipped(found.unused, word="unused"))
    skipped = list(matched.skipped)
    records = _places_by_volume(held_out)
    # A series in lq/ itself has no name; its records have the folder's.
    of_volume = {
        name: records[name or path.resolve().name]
        for name, path in volumes.items()
        if (name or path.resolve().name) in records
    }
    chosen: list[_Slice] = []
    for name in tracked(sorted(of_volume), "outputs"):
        path = matched.paths.get(name)
        if path is None:
            skipped.append(Skipped(path=volumes[name], reason=_NO_OUTPUT))
            continue
        try:
            chosen += _slices_of(name, volumes[name], path, of_volume[name], config)
        except UserError as error:
            skipped.append(Skipped(path=path, reason=str(error)))
    others = [path for name, path in matched.paths.items() if name not in of_volume]
    _tell(folder, skipped, others, config)
    if not chosen:
        raise UserError(
            f"config.evaluate.outputs: {folder} holds no output of a slice that is "
            f"held out.\n{_described(skipped, others)}"
        )
    report = {
        "folder": str(folder),
        "n_volumes": len({one.path for one in chosen}),
        "n_slices": len(chosen),
        "n_slices_without_output": len(held_out) - len(chosen),
        "n_not_held_out": len(others),
        "skipped": [{"path": str(s.path), "reason": s.reason} for s in skipped],
    }
    return Judged(JudgedSlices(held_out, sorted(chosen), options), report)


def _places_by_volume(held_out: Joined) -> dict[str, dict[int, int]]:
    """Returns {volume: {number of the slice: place of its record}}."""
    found: dict[str, dict[int, int]] = {}
    for place in range(len(held_out)):
        record = held_out[place]
        name = record["name"]
        name = name.decode() if isinstance(name, bytes) else name
        found.setdefault(name, {})[int(record["slice"])] = place
    return found


def _slices_of(
    name: str, source: Path, path: Path, places: Mapping[int, int], config: ConfigDict
) -> list[_Slice]:
    """Returns the slices of an output that belong to records.

    Raises:
      UserError: the output cannot be read, or is not on the grid of its volume.
    """
    options = settings.read_options(config)
    volume, output = read_volume(source, options), read_volume(path, options)
    matches = match_output(volume, output, by=config.data.match)
    numbers = {i: slice_number(volume, name, i) for i in matches}
    return [
        _Slice(places[numbers[i]], path, j)
        for i, j in matches.items()
        if numbers[i] in places
    ]


def _tell(
    folder: Path, skipped: Sequence[Skipped], others: Sequence[Path], config: ConfigDict
) -> None:
    """Logs what is left out; raises UserError if `config.strict` is True."""
    if others:
        logging.info("%s: %s", folder, _described((), others))
    if not skipped:
        return
    if config.strict:
        raise UserError(
            f"config.strict=True: {folder}: {describe_skipped(skipped)}\nMend or "
            "remove these, or give --config.strict=False to go on without them."
        )
    logging.warning("%s: %s", folder, describe_skipped(skipped))


def _described(skipped: Sequence[Skipped], others: Sequence[Path]) -> str:
    left = [Skipped(path=path, reason=_NOT_HELD_OUT) for path in others]
    texts = (describe_skipped(skipped), describe_skipped(left, word="not judged"))
    return "\n".join(text for text in texts if text)
