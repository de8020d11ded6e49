"""Pairs of the thorax phantom: low dose in one breath, normal dose in another.

`lq` is breath a at the low dose (2 % by default), `gt` is breath b at normal dose,
`truth` is breath a without noise, and `lung` (uint8, 0 or 1) is the exact lung mask of
breath a. Splits are by patient. A patient follows from the seed and its number.

    source = load_split(Phantom(config=phantom_config(size=256), data_dir=...), "train")
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds

from common.errors import UserError
from common.progress import tracked
from ipv2 import phantom
from ipv2.datasets import pair
from ipv2.datasets.pair_builder import fingerprint_of, named, options_of
from ipv2.datasets.places import recorded
from ipv2.datasets.splits import SPLITS
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose

FIELD_MM = 400.0
_NOISE = DoseParams(dose=0.02)


@dataclasses.dataclass(eq=False)
class PhantomConfig(tfds.core.BuilderConfig):
    """The fields of `phantom_config`, which documents them."""

    size: int = 256
    patients: tuple[int, int, int] = (4, 1, 1)
    slices: int = 8
    seed: int = 0
    noise: DoseParams = _NOISE


def phantom_config(
    *,
    size: int = 256,
    patients: tuple[int, int, int] = (4, 1, 1),
    slices: int = 8,
    seed: int = 0,
    noise: DoseParams = _NOISE,
) -> PhantomConfig:
    """Returns the builder's configuration; its name follows from all options.

    Args:
      size: height and width in pixels of the 400 mm images, 32 to 1024.
      patients: number of patients in train, val, test; 0 leaves a split out.
      slices: slices of each patient, from the diaphragm to the apex.
      seed: seed of patients, breaths and noise.
      noise: the scan that gives `lq`; `gt` is the same scan at normal dose.

    Raises:
      UserError: A value is outside its range.
    """
    if not 32 <= size <= 1024:
        raise UserError(f"phantom: size = {size}; 32 to 1024 pixels.")
    if len(patients) != 3 or min(patients) < 0 or not sum(patients):
        raise UserError(
            f"phantom: patients = {patients}; give three counts for "
            f"{', '.join(SPLITS)}, not all 0."
        )
    if slices < 1 or seed < 0:
        raise UserError(
            f"phantom: slices = {slices}, seed = {seed}; at least 1 slice, seed from 0."
        )
    counts = "-".join(str(count) for count in patients)
    config = PhantomConfig(
        name="",  # pyrefly: ignore[unexpected-keyword]: TFDS's own field
        size=size,
        patients=tuple(patients),
        slices=slices,
        seed=seed,
        noise=noise,
    )
    about = f"{size}px-{counts}x{slices}-dose{noise.dose:g}-seed{seed}"
    return named(config, about, fingerprint_of(options_of(config)))


class Phantom(tfds.core.GeneratorBasedBuilder):
    """Pairs of an analytic thorax whose truth is known.

    `info.metadata` holds `places` and `sha256`, see `places`.
    """

    VERSION = tfds.core.Version("1.1.0")

    def _create_builder_config(
        self, builder_config: PhantomConfig | None, version: Any
    ) -> PhantomConfig:
        # TFDS warns of a "custom data configuration" here, but all of ours are custom.
        del version
        return phantom_config() if builder_config is None else builder_config

    @property
    def _config(self) -> PhantomConfig:
        if not isinstance(self.builder_config, PhantomConfig):
            raise ValueError(
                f"{self.name}: config must come from phantom_config(...), got "
                f"{self.builder_config!r}."
            )
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        features = dict(pair.pair_features(has_truth=True))
        features["lung"] = tfds.features.Tensor(
            shape=(None, None), dtype=np.uint8, encoding="zlib"
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pairs of an analytic thorax in two breaths and two doses.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, Mapping[str, Any]]]]:
        del dl_manager
        result, first = {}, 0
        for split, count in zip(SPLITS, self._config.patients, strict=True):
            if count:
                result[split] = self._generate_examples(
                    split, range(first, first + count)
                )
            first += count
        return result

    def _generate_examples(
        self, split: str, patients: range
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        numbers = tracked(patients, "phantom patients")
        records = (
            r for number in numbers for r in patient_records(self._config, number)
        )
        yield from recorded(self.info.metadata, split, records)


def patient_records(config: PhantomConfig, number: int) -> list[dict[str, Any]]:
    """Returns the records of one patient, from the feet upwards."""
    # Seeds of different configurations do not overlap below a million patients.
    seed = config.seed * 1_000_000 + number
    patient = phantom.create_patient(seed)
    breaths = phantom.create_breaths(seed)
    position = phantom.slice_positions(patient, config.slices)
    low, normal = (
        phantom.render(patient, breath, position, size=config.size, field_mm=FIELD_MM)
        for breath in breaths
    )
    spacing = FIELD_MM / config.size
    scans = [
        simulate_low_dose(
            jax.random.fold_in(jax.random.key(seed), index),
            clean.hu,
            spacing,
            dataclasses.replace(config.noise, dose=dose, input_dose=math.inf),
        )
        for index, (clean, dose) in enumerate(((low, config.noise.dose), (normal, 1.0)))
    ]
    # Scanners store 12 bits from -1024 HU.
    lq, gt, truth = (
        np.clip(np.asarray(image), -1024, 3071) for image in (*scans, low.hu)
    )
    lung = np.asarray(low.lung).astype(np.uint8)
    name = f"phantom-{seed:06d}"
    return [
        pair.pair_record(
            lq=lq[i],
            gt=gt[i],
            truth=truth[i],
            spacing_mm=(spacing, spacing),
            patient=name,
            name=name,
            slice_index=i,
        )
        | {"lung": lung[i]}
        for i in range(config.slices)
    ]
