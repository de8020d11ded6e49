"""The embedded data sets as a training splits them: the sample CT and the phantom.

An export keeps these splits (`to_json`), so that whoever judges the network later knows
which slices it has not seen.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from ipv2.datasets.phantom import Phantom, phantom_config
from ipv2.datasets.simulated_pairs import (
    SAMPLE_CT,
    SimulatedPairs,
    simulated_pairs_config,
)
from ipv2.datasets.splits import Deal
from ipv2.kernels.photon_noise import DoseParams

PHANTOM = "phantom"
EMBEDDED = (SAMPLE_CT, PHANTOM)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedSplits:
    """What decides which slices are for train, val and test.

    Attributes:
      seed: of the phantom's patients, and of breaths and noise of both.
      sample_slices: (first, end) of the sample CT.
      sample_val: numbers of its slices for validation.
      sample_test: numbers of its slices for the test.
      deal: of the sample CT's slices, where no numbers are given.
      phantom_patients: number of the phantom's patients in train, val, test.
      phantom_slices: of each patient.
    """

    seed: int
    sample_slices: tuple[int, int]
    sample_val: tuple[int, ...]
    sample_test: tuple[int, ...]
    deal: Deal
    phantom_patients: tuple[int, int, int]
    phantom_slices: int

    def holds_out(self, name: str) -> bool:
        """Returns whether any slice of a data set is for val or test."""
        if name == PHANTOM:
            return any(self.phantom_patients[1:])
        if self.deal.names_patients:
            return SAMPLE_CT in (*self.deal.val_patients, *self.deal.test_patients)
        shares = self.deal.fractions[1:]
        return bool(self.sample_val or self.sample_test or any(shares))

    def builder(
        self, name: str, *, noise: DoseParams, phantom_size: int, cache: Path
    ) -> tfds.core.DatasetBuilder:
        """Returns the builder of a data set.

        Args:
          name: one of `EMBEDDED`.
          noise: the scan that gives the low dose.
          phantom_size: side of the phantom's slices, pixels.
          cache: folder of built data sets.

        Raises:
          UserError: a value is outside its range.
          ValueError: there is no such data set.
        """
        if name == SAMPLE_CT:
            pairs = simulated_pairs_config(
                SAMPLE_CT,
                slices=self.sample_slices,
                val_slices=self.sample_val,
                test_slices=self.sample_test,
                deal=self.deal,
                noise=noise,
                seed=self.seed,
            )
            return SimulatedPairs(config=pairs, data_dir=cache)
        if name != PHANTOM:
            raise ValueError(f"got data set {name!r}, accepted: {', '.join(EMBEDDED)}")
        patients = phantom_config(
            size=phantom_size,
            patients=self.phantom_patients,
            slices=self.phantom_slices,
            noise=noise,
            seed=self.seed,
        )
        return Phantom(config=patients, data_dir=cache)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "EmbeddedSplits":
        """Returns the splits of `to_json`.

        Raises:
          KeyError, TypeError: a field is missing, or unknown.
        """
        fields = _tuples(found)
        fields["deal"] = Deal(**_tuples(found["deal"]))
        return cls(**fields)


def _tuples(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the same with tuples in place of JSON's lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


UNET_SPLITS = EmbeddedSplits(
    seed=0,
    sample_slices=(0, 64),
    sample_val=(42, 44),
    sample_test=(22, 47, 48, 49),
    deal=Deal(seed=0),
    phantom_patients=(2, 1, 2),
    phantom_slices=2,
)
"""Those of configs/ipv2_unet.py, which made the network that ships: for exports that do
not state theirs."""
