"""A user's own pairs in root/lq and root/gt, matched by name.

    builder = PairedFolders(config=paired_folders_config("data"), data_dir="cache")
    views = split_sources(builder, Deal(seed=0))        # {"train": ..., "val": ...}

`ct_io` documents the formats and the names of pairs. The dataset on disk holds every
usable pair, patient by patient. Train, val and test are views of it: a new split needs
no new build, and only usable patients are dealt.
"""

import dataclasses
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from common.dataset import load_split
from common.errors import UserError
from common.progress import tracked
from ipv2.ct_io import ReadOptions, Volume
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
from ipv2.ct_io.patients import log_patients, patient_of, slice_number
from ipv2.datasets import pair
from ipv2.datasets.pair_builder import (
    PairBuilder,
    fingerprint_of,
    known_spacing,
    named,
    options_of,
)
from ipv2.datasets.places import View, by_slice, places_of
from ipv2.datasets.splits import SPLITS, Deal, deal_patients

PAIRS = "pairs"
"""The only TFDS split."""
_DEFAULT = ReadOptions()
_LEAK = (
    "split by slices, not by patients: the splits share patients, so scores on val and "
    "test are too good for new patients"
)
_NO_WINDOW = (
    "a PNG has no HU. State the window the images were made with, centre and width in "
    "HU (config.data.window); (127.5, 255) keeps 8-bit grey levels unchanged"
)


@dataclasses.dataclass(eq=False)
class PairedFoldersConfig(tfds.core.BuilderConfig):
    """The fields of `paired_folders_config`, which documents them."""

    root: str = ""
    reading: ReadOptions = _DEFAULT
    match: Match = "position"
    name_pattern: str = ""


def paired_folders_config(
    root: str | os.PathLike[str],
    *,
    reading: ReadOptions = _DEFAULT,
    match: Match = "position",
    name_pattern: str = "",
) -> PairedFoldersConfig:
    """Returns the builder's configuration for the present state of a folder.

    Args:
      root: folder that holds lq/ and gt/.
      reading: how the files are read. PNG files need a window; (127.5, 255) keeps 8-bit
        grey levels unchanged.
      match: how slices of two breaths are matched, see `ct_io.match_slices`.
      name_pattern: which names form a pair, see `ct_io.paired_paths`; '': equal names.

    Raises:
      UserError: An option is wrong, or a folder is missing.
    """
    root = Path(root).resolve()
    if match not in ("position", "index"):
        raise UserError(f"match: got {match!r}, accepted: 'position' or 'index'.")
    config = PairedFoldersConfig(
        name="",  # pyrefly: ignore[unexpected-keyword]: TFDS's own field
        root=str(root),
        reading=reading,
        match=match,
        name_pattern=name_pattern,
    )
    return named(config, config.root, fingerprint(config))


def fingerprint(config: PairedFoldersConfig) -> str:
    """Returns 16 hex digits of the options and of all files' names, sizes and times.

    Raises:
      UserError: root/lq or root/gt is missing.
    """
    sides = [Path(config.root) / side for side in ("lq", "gt")]
    for side in sides:
        if not side.is_dir():
            raise UserError(f"{side}: no such folder. {LAYOUT}.")
    return fingerprint_of(options_of(config), *sides)


class PairedFolders(PairBuilder[PairedFoldersConfig]):
    """Pairs of root/lq and root/gt in one TFDS split, patient by patient.

    Besides the keys of `PairBuilder`, `info.metadata` holds `left_out`, the slices
    without a partner by pair, and `unusable`, the patients without a usable pair.
    """

    VERSION = tfds.core.Version("2.0.0")
    CONFIG = PairedFoldersConfig
    HAS_TRUTH = False

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, Mapping[str, Any]]]]:
        del dl_manager
        self.info.metadata.update(source=self._config.root, warnings=[], left_out={})
        return {PAIRS: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        metadata = self.info.metadata
        config = self._config
        found = paired_paths(config.root, name_pattern=config.name_pattern)
        skipped = list(found.skipped)
        patients = self._patients(found.pairs, skipped)
        yield from self._recorded(PAIRS, self._records(patients, skipped))
        places = places_of(metadata, PAIRS)
        used = {place.patient for place in places}
        metadata["unusable"] = sorted(set(patients) - used)
        self._keep_left_out(skipped, found.unused)
        if not used:
            raise UserError(
                f"{config.root}: no pair can be used.\n{_why_none(skipped)}"
            )
        log_patients(_used_items(patients, {place.name for place in places}))
        self._check_unchanged(fingerprint(config))

    def _patients(
        self, pairs: Iterable[PairItem], skipped: list[Skipped]
    ) -> dict[str, list[PairItem]]:
        """Returns the pairs of each patient, sorted; reads only headers."""
        by_patient: dict[str, list[PairItem]] = {}
        for item in pairs:
            try:
                patient = patient_of(Item(name=item.name, path=item.lq))
            except UserError as error:
                skipped.append(Skipped(path=item.lq, reason=str(error)))
                continue
            by_patient.setdefault(patient, []).append(item)
        return dict(sorted(by_patient.items()))

    def _records(
        self, patients: Mapping[str, Sequence[PairItem]], skipped: list[Skipped]
    ) -> Iterator[dict[str, Any]]:
        whose = {item.name: p for p, items in patients.items() for item in items}
        items = [item for own in patients.values() for item in own]
        steps = tracked(items, "pairs")
        readable = self._with_window(steps, skipped)
        for item, lq, gt in read_pairs(readable, skipped, self._config.reading):
            try:
                records = self._pair_records(item, lq, gt, whose[item.name])
            except UserError as error:
                skipped.append(Skipped(path=item.lq, reason=str(error)))
                continue
            skipped += [*lq.left_out, *gt.left_out]
            yield from records

    def _with_window(
        self, items: Iterable[PairItem], skipped: list[Skipped]
    ) -> Iterator[PairItem]:
        """Yields the pairs that are in HU or that a window converts to HU."""
        for item in items:
            if self._config.reading.window is None and _is_png(item.lq):
                skipped.append(Skipped(path=item.lq, reason=_NO_WINDOW))
            else:
                yield item

    def _pair_records(
        self, item: PairItem, lq: Volume, gt: Volume, patient: str
    ) -> list[dict[str, Any]]:
        """Returns all records of a pair, after all checks.

        Raises:
          UserError: The pair cannot be used.
        """
        lq.require_hu()
        gt.require_hu()
        matches, left_out = match_slices(lq, gt, by=self._config.match)
        records = [
            pair.pair_record(
                lq=lq.hu[i],
                gt=gt.hu[j],
                spacing_mm=known_spacing(lq),
                patient=patient,
                name=item.name or lq.name,
                slice_index=slice_number(lq, item.name, i),
            )
            for i, j in matches
        ]
        if left_out:
            self.info.metadata["left_out"][item.name] = left_out
        return records

    def _post_download_and_prepare_hook(self) -> None:
        for name, left_out in self.info.metadata["left_out"].items():
            logging.info("%s: %s", name, left_out)
        super()._post_download_and_prepare_hook()


def _used_items(
    patients: Mapping[str, Sequence[PairItem]], names: Collection[str]
) -> dict[str, list[Item]]:
    """Returns each patient's low-dose volumes that are in the dataset."""
    return {
        patient: [Item(name=i.name, path=i.lq) for i in items if i.name in names]
        for patient, items in patients.items()
    }


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _why_none(skipped: Sequence[Skipped]) -> str:
    """Returns the reasons; all PNG files without a window share one line."""
    lacking = [item.path for item in skipped if item.reason == _NO_WINDOW]
    others = [item for item in skipped if item.reason != _NO_WINDOW]
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    lines = [f"{lacking[0]}{more}: {_NO_WINDOW}."] if lacking else []
    return "\n".join([*lines, describe_skipped(others)]).rstrip()


def split_sources(builder: PairedFolders, deal: Deal) -> dict[str, View]:
    """Returns train, val and test of a dataset of paired folders; builds it if needed.

    Args:
      builder: builder of the dataset.
      deal: how patients are dealt to the splits.

    Returns:
      A view for each split; it is empty if the split has no patients.

    Raises:
      UserError: The sources are wrong, or the patients cannot be dealt like this.
    """
    source = load_split(builder, PAIRS)
    metadata = builder.info.metadata
    places = places_of(metadata, PAIRS)
    if deal.by == "slice":
        parts = dict(zip(SPLITS, by_slice(places, deal.fractions), strict=True))
        warnings = (_LEAK,) if len(deal.wanted) > 1 else ()
    else:
        patients, warnings = deal_patients(
            (place.patient for place in places), deal, unusable=metadata["unusable"]
        )
        parts = {
            split: [place for place in places if place.patient in set(patients[split])]
            for split in SPLITS
        }
    for warning in warnings:
        logging.warning("%s: %s", metadata["source"], warning)
    return {split: View(source, parts[split]) for split in SPLITS}
