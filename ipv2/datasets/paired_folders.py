"""A user's own pairs: root/lq and root/gt, by name, split by patient.

    config = paired_folders_config("data")
    source = load_split(PairedFolders(config=config, data_dir="cache"), "train")

What can be read and how pairs are named: `ct_io`. Splits are made by
patient (`ct_io.patient_of`), so that no person is in two of them.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from common.dataset import progress
from common.errors import UserError
from ipv2.ct_io import ReadOptions
from ipv2.ct_io.listing import (
    LAYOUT,
    Item,
    PairItem,
    Skipped,
    describe_skipped,
    paired_paths,
    read_pairs,
)
from ipv2.ct_io.matching import Match, match_slices
from ipv2.ct_io.patients import patient_of, slice_number
from ipv2.datasets import pair
from ipv2.datasets.pair_builder import (
    SPLITS,
    PairBuilder,
    check_fractions,
    fingerprint_of,
    named,
    options_of,
    split_patients,
)

_DEFAULT = ReadOptions()
_LEAK = (
    "split by slices, not by patients: the splits share patients, so scores on val and "
    "test are too good for new patients"
)


@dataclasses.dataclass(eq=False)
class PairedFoldersConfig(tfds.core.BuilderConfig):
    """Made by `paired_folders_config`, which says what the fields are."""

    root: str = ""
    reading: ReadOptions = _DEFAULT
    match: Match = "position"
    seed: int = 0
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    patients: Mapping[str, Sequence[str]] | None = None
    by_slice: bool = False


def paired_folders_config(
    root: str | os.PathLike[str],
    *,
    reading: ReadOptions = _DEFAULT,
    match: Match = "position",
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    patients: Mapping[str, Sequence[str]] | None = None,
    by_slice: bool = False,
) -> PairedFoldersConfig:
    """The builder's configuration for the present state of a folder.

    Args:
      root: holds lq/ and gt/.
      reading: how the files are read. PNG need a window; (127.5, 255) leaves 8-bit grey
        levels as they are.
      match: how slices of two breaths are matched, see `ct_io.match_slices`.
      seed: of the order that patients are dealt out in.
      fractions: of patients for train, val, test; 0 leaves a split out.
      patients: instead: the patients of each split, by name. Others are left out.
      by_slice: split each patient's slices instead, the first part for train, the last
        for test. Only for a look at one or two patients: the scores leak.

    Raises:
      UserError: an option is wrong, or a folder is missing.
    """
    root = Path(root).resolve()
    check_fractions(fractions)
    if match not in ("position", "index"):
        raise UserError(f"match is 'position' or 'index', got {match!r}.")
    if patients is not None:
        _check_patients(patients)
    if patients is not None and by_slice:
        raise UserError("give either `patients` or `by_slice`, not both.")
    config = PairedFoldersConfig(
        name="",  # pyrefly: ignore[unexpected-keyword]: TFDS's own field
        root=str(root),
        reading=reading,
        match=match,
        seed=seed,
        fractions=fractions,
        patients=patients,
        by_slice=by_slice,
    )
    return named(config, config.root, fingerprint(config))


def _check_patients(patients: Mapping[str, Sequence[str]]) -> None:
    named = [patient for group in patients.values() for patient in group]
    twice = sorted({patient for patient in named if named.count(patient) > 1})
    if not set(patients) <= set(SPLITS) or not named or twice:
        raise UserError(
            f"patients names those of each of {', '.join(SPLITS)}, each once; got "
            f"splits {sorted(patients)}, {twice or 'nobody'} twice."
        )


def fingerprint(config: PairedFoldersConfig) -> str:
    """16 hex digits of the options and of every file's name, size and time, now.

    Raises:
      UserError: root/lq or root/gt is missing.
    """
    sides = [Path(config.root) / side for side in ("lq", "gt")]
    for side in sides:
        if not side.is_dir():
            raise UserError(f"{side}: no such folder. {LAYOUT}.")
    return fingerprint_of(options_of(config), *sides)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which slices of which pairs a split takes: a range of each pair's matches."""

    pairs: tuple[tuple[PairItem, str, range | None], ...]


class PairedFolders(PairBuilder[PairedFoldersConfig]):
    """Pairs of root/lq and root/gt.

    Beside what `PairBuilder` tells, `info.metadata` holds `left_out`: slices without a
    partner, by pair.
    """

    VERSION = tfds.core.Version("1.0.0")
    CONFIG = PairedFoldersConfig
    HAS_TRUTH = False

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager
        skipped: dict[str, Skipped] = {}
        plans = self._plan(skipped)
        self.info.metadata["left_out"] = {}
        self._describe(
            source=self._config.root,
            patients={
                split: [patient for _, patient, _ in plan.pairs]
                for split, plan in plans.items()
            },
            warning=_LEAK if self._config.by_slice else "",
        )
        self._record_skipped(_by_path(skipped))
        return {
            split: self._generate_examples(split, plan, skipped)
            for split, plan in plans.items()
        }

    def _plan(self, skipped: dict[str, Skipped]) -> dict[str, _Plan]:
        config = self._config
        found = paired_paths(config.root)
        skipped.update({str(item.path): item for item in found.skipped})
        by_patient: dict[str, list[PairItem]] = {}
        for item in found.pairs:
            try:
                patient = patient_of(Item(name=item.name, path=item.lq))
            except UserError as error:
                skipped[str(item.lq)] = Skipped(path=item.lq, reason=str(error))
                continue
            by_patient.setdefault(patient, []).append(item)
            if config.reading.window is None and item.lq.suffix.lower() == ".png":
                raise UserError(
                    f"{item.lq}: a PNG has no HU. State the window the images were "
                    "made with, centre and width in HU (`window`); (127.5, 255) takes "
                    "8-bit grey levels as they are."
                )
        if config.by_slice:
            return self._plan_by_slice(by_patient, skipped)
        splits = self._patients_by_split(by_patient, skipped)
        return {
            split: _Plan(tuple((i, p, None) for p in names for i in by_patient[p]))
            for split, names in splits.items()
            if names
        }

    def _patients_by_split(
        self, by_patient: Mapping[str, list[PairItem]], skipped: dict[str, Skipped]
    ) -> dict[str, list[str]]:
        config = self._config
        if config.patients is None:
            return split_patients(
                list(by_patient), seed=config.seed, fractions=config.fractions
            )
        named = {p for group in config.patients.values() for p in group}
        if unknown := sorted(named - set(by_patient)):
            raise UserError(
                f"{config.root}: no patient {unknown}; there are {sorted(by_patient)}. "
                "Correct `patients`."
            )
        for patient in sorted(set(by_patient) - named):
            for item in by_patient[patient]:
                reason = f"patient {patient!r} is in no split of `patients`"
                skipped[str(item.lq)] = Skipped(path=item.lq, reason=reason)
        return {split: list(config.patients.get(split, ())) for split in SPLITS}

    def _plan_by_slice(
        self, by_patient: Mapping[str, list[PairItem]], skipped: dict[str, Skipped]
    ) -> dict[str, _Plan]:
        config = self._config
        parts: dict[str, list[tuple[PairItem, str, range | None]]] = {}
        for patient, items in by_patient.items():
            counts = [
                (item, len(matches))
                for item, _, _, matches in self._read(items, skipped)
            ]
            total, start = sum(count for _, count in counts), 0
            edges = [0]
            for fraction in config.fractions:
                edges.append(round(total * fraction) + edges[-1])
            edges[-1] = total
            for item, count in counts:
                for index, split in enumerate(SPLITS):
                    low = max(edges[index] - start, 0)
                    high = min(edges[index + 1] - start, count)
                    if low < high:
                        parts.setdefault(split, []).append(
                            (item, patient, range(low, high))
                        )
                start += count
        return {split: _Plan(tuple(parts[split])) for split in SPLITS if split in parts}

    def _read(
        self, items: Iterable[PairItem], skipped: dict[str, Skipped]
    ) -> Iterator[tuple[PairItem, Any, Any, list[tuple[int, int]]]]:
        """Pairs whose slices match, as (item, lq, gt, matches)."""
        config = self._config
        bad: list[Skipped] = []
        for item, lq, gt in read_pairs(items, bad, config.reading):
            try:
                lq.require_hu()
                gt.require_hu()
                matches, left_out = match_slices(lq, gt, by=config.match)
            except UserError as error:
                bad.append(Skipped(path=item.lq, reason=str(error)))
                continue
            if left_out:
                self.info.metadata.setdefault("left_out", {})[item.name] = left_out
            yield item, lq, gt, matches
        skipped.update({str(entry.path): entry for entry in bad})

    def _generate_examples(
        self, split: str, plan: _Plan, skipped: dict[str, Skipped]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        parts = {item.name: (patient, part) for item, patient, part in plan.pairs}
        items = [item for item, _, _ in plan.pairs]
        key = 0
        for item, lq, gt, matches in self._read(
            progress(items, title=f"{split} pairs", total=len(items)), skipped
        ):
            patient, part = parts[item.name]
            for number in part if part is not None else range(len(matches)):
                i, j = matches[number]
                yield (
                    key,
                    pair.pair_record(
                        lq=lq.hu[i],
                        gt=gt.hu[j],
                        spacing_mm=lq.spacing_mm[1:],
                        patient=patient,
                        name=item.name or lq.name,
                        slice_index=slice_number(lq, item.name, i),
                    ),
                )
                key += 1
        self._record_skipped(_by_path(skipped))
        if not key:
            raise UserError(
                f"{self._config.root}: no pair of split {split!r} can be read.\n"
                + describe_skipped(list(skipped.values()))
            )
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        config = self._config
        if not config.name.endswith(fingerprint(config)):
            raise UserError(
                f"{config.root}: files changed while the dataset was built. Run it "
                "again when they are at rest."
            )

    def _post_download_and_prepare_hook(self) -> None:
        for name, left_out in self.info.metadata["left_out"].items():
            logging.info("%s: %s", name, left_out)
        super()._post_download_and_prepare_hook()


def _by_path(skipped: Mapping[str, Skipped]) -> list[Skipped]:
    return [skipped[path] for path in sorted(skipped)]
