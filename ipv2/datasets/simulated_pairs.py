"""Misaligned pairs with known truth from any normal-dose chest CT.

For every slice x of a source, `lq` is x at the low dose, `truth` is x unchanged, and
`gt` is x in another breath (`breath`). All three contain the noise of x: `lq` under the
added noise, `truth` unchanged, `gt` displaced.

    config = simulated_pairs_config("scans")           # or "sample_ct"
    source = load_split(SimulatedPairs(config=config, data_dir="cache"), "train")

Splits are by patient. If a source has one patient, or is split by slices, the splits
are contiguous slabs of slices with gaps between them. Scores are then for the same
patient; `info.metadata["warnings"]` states this.
"""

import dataclasses
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from common.dataset import load_split
from common.errors import UserError
from common.progress import tracked
from ipv2.ct_io import ReadOptions, Volume, hu_to_int16, read_volume, stem_of
from ipv2.ct_io.listing import (
    Found,
    Item,
    Skipped,
    describe_skipped,
    list_volumes,
)
from ipv2.ct_io.patients import log_patients, patient_of, slice_number
from ipv2.datasets import breath, pair
from ipv2.datasets.pair_builder import (
    PairBuilder,
    fingerprint_of,
    known_spacing,
    named,
    options_of,
)
from ipv2.datasets.places import places_of
from ipv2.datasets.sample_ct import SampleCt, SampleUnavailable
from ipv2.datasets.splits import SPLITS, Deal, deal_patients
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose

SAMPLE_CT = "sample_ct"
_DEFAULT = ReadOptions()
# Slices per simulation: more are not faster on CPU, and memory grows with them.
_BATCH = 8
_NOISE = DoseParams(dose=0.02)
_DEAL = Deal()
_SAME_PATIENT = (
    "the splits are slabs of the same chest, so scores on val and test are too good "
    "for new patients"
)


@dataclasses.dataclass(eq=False)
class SimulatedPairsConfig(tfds.core.BuilderConfig):
    """The fields of `simulated_pairs_config`, which documents them."""

    source: str = SAMPLE_CT
    wheel: str | None = None
    reading: ReadOptions = _DEFAULT
    slices: tuple[int, int] | None = None
    gap_slices: int = 2
    val_slices: tuple[int, ...] = ()
    test_slices: tuple[int, ...] = ()
    deal: Deal = _DEAL
    seed: int = 0
    noise: DoseParams = _NOISE
    chest_mm: float = 5.0
    lung_mm: float = 9.0
    through_slices: int = 0


def simulated_pairs_config(
    source: str | os.PathLike[str],
    *,
    wheel: str | os.PathLike[str] | None = None,
    reading: ReadOptions = _DEFAULT,
    slices: tuple[int, int] | None = None,
    gap_slices: int = 2,
    val_slices: Sequence[int] = (),
    test_slices: Sequence[int] = (),
    deal: Deal = _DEAL,
    seed: int = 0,
    noise: DoseParams = _NOISE,
    chest_mm: float | int = 5.0,
    lung_mm: float | int = 9.0,
    through_slices: int = 0,
) -> SimulatedPairsConfig:
    """Returns the builder's configuration for the present state of a source.

    Args:
      source: a volume's file, a folder of one series, a folder of volumes, or
        'sample_ct'. Normal dose, HU, axial, patients on their backs.
      wheel: for 'sample_ct': path of a copy of its file; None downloads it.
      reading: how the files are read.
      slices: (first, end) of each volume; None takes all.
      gap_slices: slices left out between the splits of a single patient.
      val_slices: numbers of the slices of a single patient for validation. With these
        or `test_slices`, all others are for training; () for slabs by `deal`.
      test_slices: likewise for the test.
      deal: how patients are dealt to the splits; its fractions also apply to the
        slices of a single patient.
      seed: seed of breaths and noise.
      noise: the scan that gives `lq`; its `input_dose` is the dose of the source.
      chest_mm: see `breath.MotionParams`.
      lung_mm: see `breath.MotionParams`.
      through_slices: see `breath.MotionParams`.

    Raises:
      UserError: An option is wrong, or the source is missing.
    """
    if slices is not None and not 0 <= slices[0] < slices[1]:
        raise UserError(f"slices = {slices}; give (first, end) with 0 <= first < end.")
    if gap_slices < 0 or seed < 0:
        raise UserError(f"gap_slices = {gap_slices}, seed = {seed}; each at least 0.")
    if both := sorted(set(val_slices) & set(test_slices)):
        raise UserError(f"val_slices, test_slices: {both} are in both; each in one.")
    try:
        breath.MotionParams(
            chest_mm=chest_mm, lung_mm=lung_mm, through_slices=through_slices
        )
    except ValueError as error:
        raise UserError(f"simulated pairs: {error}") from error
    name = os.fspath(source)
    if name != SAMPLE_CT:
        path = Path(name).resolve()
        if not path.exists():
            raise UserError(
                f"{path}: no such file or folder. Give a volume, a folder of volumes, "
                f"or {SAMPLE_CT!r}."
            )
        name = str(path)
    config = SimulatedPairsConfig(
        name="",  # pyrefly: ignore[unexpected-keyword]: TFDS's own field
        source=name,
        wheel=None if wheel is None else os.fspath(wheel),
        reading=reading,
        slices=None if slices is None else (int(slices[0]), int(slices[1])),
        gap_slices=gap_slices,
        val_slices=tuple(map(int, val_slices)),
        test_slices=tuple(map(int, test_slices)),
        deal=deal,
        seed=seed,
        noise=noise,
        chest_mm=float(chest_mm),
        lung_mm=float(lung_mm),
        through_slices=through_slices,
    )
    return named(config, name, fingerprint(config))


def fingerprint(config: SimulatedPairsConfig) -> str:
    """Returns 16 hex digits of the options and of the state of every source file."""
    options = options_of(config)
    # The path of the sample's file does not matter: its content is checked by a hash.
    del options["source"], options["wheel"]
    for key in ("val_slices", "test_slices"):
        if not options[key]:
            del options[key]  # data sets from before these options stay valid
    files = [] if config.source == SAMPLE_CT else [Path(config.source)]
    return fingerprint_of(options, *files)


@dataclasses.dataclass(frozen=True)
class _Part:
    """The slices of one volume in a split."""

    item: Item
    patient: str
    slices: range


class SimulatedPairs(PairBuilder[SimulatedPairsConfig]):
    """Misaligned pairs with known truth."""

    VERSION = tfds.core.Version("1.1.0")
    CONFIG = SimulatedPairsConfig
    HAS_TRUTH = True

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, Mapping[str, Any]]]]:
        del dl_manager
        skipped: list[Skipped] = []
        found = self._found()
        plan, warnings = self._plan(found.items, skipped)
        self.info.metadata.update(source=self._config.source, warnings=list(warnings))
        self._keep_left_out(skipped, found.unused)
        return {
            split: self._generate_examples(split, parts, skipped, found.unused)
            for split, parts in plan.items()
        }

    def _plan(
        self, items: Sequence[Item], skipped: list[Skipped]
    ) -> tuple[dict[str, list[_Part]], tuple[str, ...]]:
        config = self._config
        by_patient: dict[str, list[_Part]] = {}
        unusable = set()
        for item in items:
            patient = None
            try:
                patient = SAMPLE_CT if config.source == SAMPLE_CT else patient_of(item)
                # Load everything now: a split must not get an unusable volume.
                chosen = self._chosen(self._load(item))
            except SampleUnavailable:
                raise
            except UserError as error:
                skipped.append(Skipped(path=item.path, reason=str(error)))
                unusable |= {patient} - {None}
                continue
            by_patient.setdefault(patient, []).append(_Part(item, patient, chosen))
        if not by_patient:
            raise UserError(
                f"{config.source}: no CT volume found that can be used.\n"
                + describe_skipped(skipped)
            )
        if config.source != SAMPLE_CT:
            log_patients({p: [o.item for o in own] for p, own in by_patient.items()})
        deal = config.deal
        alone = len(by_patient) == 1 and not deal.names_patients
        if alone or deal.by == "slice":
            plan = self._slabs([part for own in by_patient.values() for part in own])
            return plan, (_SAME_PATIENT,) if len(plan) > 1 else ()
        dealt = deal_patients(by_patient, deal, unusable=unusable)
        plan = {
            split: [part for name in names for part in by_patient[name]]
            for split, names in dealt.patients.items()
            if names
        }
        return plan, dealt.warnings

    def _found(self) -> Found:
        path = Path(self._config.source)
        if self._config.source == SAMPLE_CT:
            return Found(items=(Item(name=SAMPLE_CT, path=path),), unused=())
        if path.is_file():
            return Found(items=(Item(name=stem_of(path), path=path),), unused=())
        return list_volumes(path)

    def _slabs(self, parts: Sequence[_Part]) -> dict[str, list[_Part]]:
        config = self._config
        plan: dict[str, list[_Part]] = {}
        for part in parts:
            if config.val_slices or config.test_slices:
                dealt = runs(
                    part.slices,
                    {"val": config.val_slices, "test": config.test_slices},
                    config.gap_slices,
                )
            else:
                count = len(part.slices)
                dealt = {
                    split: [part.slices[own.start : own.stop]]
                    for split, own in slabs(
                        count, config.deal.fractions, config.gap_slices
                    ).items()
                }
            for split, own in dealt.items():
                plan.setdefault(split, []).extend(
                    dataclasses.replace(part, slices=run) for run in own
                )
        return plan

    def _chosen(self, volume: Volume) -> range:
        """Returns the configured slices that have a partner at `through_slices`."""
        count, step = len(volume.hu), self._config.through_slices
        first, end = self._config.slices or (0, count)
        chosen = range(max(first, -step, 0), min(end, count - max(step, 0)))
        if not chosen:
            raise UserError(
                f"{volume.name}: none of its {count} slices can be used with slices = "
                f"{self._config.slices} and through_slices = {step}."
            )
        return chosen

    def _load(self, item: Item) -> Volume:
        """Returns the volume after all checks.

        Raises:
          UserError: The volume cannot be used.
        """
        if self._config.source == SAMPLE_CT:
            return self._sample()
        volume = read_volume(item.path, self._config.reading)
        volume.require_hu()
        hu_to_int16(volume.hu, name=volume.name)
        if not volume.spacing_known:
            raise UserError(
                f"{volume.name}: the pixel size is unknown, but the simulation of "
                "breath and noise needs it. Give it, such as config.data.pixel_mm=0.8."
            )
        check_axial(volume)
        return volume

    def _sample(self) -> Volume:
        builder = SampleCt(wheel=self._config.wheel, data_dir=self._data_dir_root)
        records = load_split(builder, "train")
        stack = [records[i] for i in range(len(records))]
        row, column = (float(mm) for mm in stack[0]["spacing_mm"])
        return Volume(
            hu=np.stack([record["hu"] for record in stack]).astype(np.float32),
            spacing_mm=(float(stack[0]["slice_spacing"]), row, column),
            name=SAMPLE_CT,
        )

    def _generate_examples(
        self,
        split: str,
        parts: Sequence[_Part],
        skipped: list[Skipped],
        unused: Sequence[Skipped],
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        yield from self._recorded(split, self._records(split, parts, skipped))
        self._keep_left_out(skipped, unused)
        if not places_of(self.info.metadata, split):
            raise UserError(
                f"{self._config.source}: no volume of split {split!r} can be used.\n"
                + describe_skipped(skipped)
            )
        self._check_unchanged(fingerprint(self._config))

    def _records(
        self, split: str, parts: Sequence[_Part], skipped: list[Skipped]
    ) -> Iterator[dict[str, Any]]:
        for part in tracked(parts, f"{split} volumes"):
            try:
                volume = self._load(part.item)
                records = self._part_records(part, volume)
            except UserError as error:
                skipped.append(Skipped(path=part.item.path, reason=str(error)))
                continue
            skipped += volume.left_out
            yield from records

    def _part_records(self, part: _Part, volume: Volume) -> list[dict[str, Any]]:
        """Returns the records of a part, after all checks.

        Raises:
          UserError: A displaced image exceeds int16.
        """
        name = part.item.name or volume.name
        lq, gt = simulate_pair(self._config, volume, name, part.slices)
        return [
            pair.pair_record(
                lq=lq[place],
                gt=gt[place],
                truth=volume.hu[index],
                spacing_mm=known_spacing(volume),
                patient=part.patient,
                name=name,
                slice_index=slice_number(volume, name, index),
            )
            for place, index in enumerate(part.slices)
        ]


def check_axial(volume: Volume) -> None:
    """Checks for axial slices, square pixels, and the patient's back at the bottom.

    Raises:
      UserError: The volume differs.
    """
    direction = np.asarray(volume.direction).reshape(3, 3)
    # 0.9: gantries and necks tilt by up to 25 degrees.
    if direction[1, 1] < 0.9 or abs(direction[2, 2]) < 0.9:
        raise UserError(
            f"{volume.name}: not axial slices with the patient's back at the bottom "
            f"(direction {np.round(direction, 2).tolist()}); the simulation of "
            "breathing needs them. Reorient the volume, or remove it."
        )
    _, row, column = volume.spacing_mm
    if min(volume.hu.shape[1:]) < 16 or abs(row / column - 1) > 1e-3:
        raise UserError(
            f"{volume.name}: got slices of {volume.hu.shape[1:]} pixels of {row} x "
            f"{column} mm; accepted: at least 16 x 16 square pixels. Resample the "
            "volume."
        )


def runs(
    slices: range, held_out: Mapping[str, Sequence[int]], gap_slices: int
) -> dict[str, list[range]]:
    """Returns the runs of consecutive slices of each split; others are for training.

    Args:
      slices: all that there are.
      held_out: numbers of slices by split.
      gap_slices: how many slices next to those held out are left out of the training.

    Raises:
      UserError: A number is not among the slices, or none are left for training.
    """
    held = sorted(number for numbers in held_out.values() for number in numbers)
    if missing := [number for number in held if number not in slices]:
        raise UserError(
            f"slices held out: got {missing}, accepted: {slices.start} to "
            f"{slices.stop - 1}."
        )
    train = [n for n in slices if all(abs(n - other) > gap_slices for other in held)]
    if not train:
        raise UserError(
            f"slices held out: of {slices.start} to {slices.stop - 1} none is left for "
            f"training, more than {gap_slices} slices from all of {held}."
        )
    named = {"train": train} | {k: sorted(v) for k, v in held_out.items() if v}
    return {split: _consecutive(numbers) for split, numbers in named.items()}


def _consecutive(numbers: Sequence[int]) -> list[range]:
    """Returns numbers that rise as ranges."""
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


def slabs(count: int, fractions: Sequence[float], gap_slices: int) -> dict[str, range]:
    """Returns contiguous ranges of 0..count for the splits, with gaps between them.

    Raises:
      UserError: There are too few slices for one in every split.
    """
    used = [(s, f) for s, f in zip(SPLITS, fractions, strict=True) if f > 0]
    left = count - gap_slices * (len(used) - 1)
    if left < len(used):
        raise UserError(
            f"{count} slices of one patient for {len(used)} splits with gaps of "
            f"{gap_slices} are too few. Add slices or patients, or leave splits out: "
            "config.data.split=(1.0, 0.0, 0.0) trains on all."
        )
    sizes = [max(1, round(fraction * left)) for _, fraction in used]
    largest = int(np.argmax(sizes))
    sizes[largest] += left - sum(sizes)
    result, start = {}, 0
    for (split, _), size in zip(used, sizes, strict=True):
        result[split] = range(start, start + size)
        start += size + gap_slices
    return result


def simulate_pair(
    config: SimulatedPairsConfig, volume: Volume, name: str, chosen: range
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (lq, gt) of the chosen slices, HU float32.

    A slice's noise follows from seed, name and slice alone.
    """
    motion = breath.MotionParams(
        chest_mm=config.chest_mm,
        lung_mm=config.lung_mm,
        through_slices=config.through_slices,
    )
    name_hash = zlib.crc32(name.encode())
    # Breaths differ between volumes, noise between slices.
    other = volume.hu[chosen.start + motion.through_slices :][: len(chosen)]
    z_mm = volume.spacing_mm[0] * chosen.start
    field = breath.displacement_mm(
        other, volume.spacing_mm, config.seed + name_hash, motion, first_mm=z_mm
    )
    plane_mm = volume.spacing_mm[1:]
    gt = np.stack(
        [breath.warp(hu, u, plane_mm) for hu, u in zip(other, field, strict=True)]
    )
    rng = jax.random.fold_in(jax.random.key(config.seed), name_hash)
    lq = []
    for start in range(chosen.start, chosen.stop, _BATCH):
        # Repeating the last slice keeps one batch size, so XLA compiles once.
        index = np.minimum(np.arange(start, start + _BATCH), chosen.stop - 1)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, jnp.asarray(index))
        lq.append(simulate_low_dose(keys, volume.hu[index], plane_mm[1], config.noise))
    simulated = np.concatenate(lq)[: len(chosen)]
    # Scanners store 12 bits from -1024 HU.
    return np.clip(simulated, -1024, 3071), gt
