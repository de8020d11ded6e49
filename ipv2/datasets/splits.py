"""Deals whole patients to train, val and test, by a hash or by name.

A patient's u is the SHA-256 of seed and name, as a number in [0, 1). With shares
(f_train, f_val, f_test):

    val if u < f_val, test if u >= 1 - f_test, else train

So a patient's split follows from the name alone, and adding patients moves nobody. In a
small dataset val or test may be empty; a warning states this, and evaluation uses the
other one.

Two exceptions keep small datasets usable. Each warns and names the patient:
- Nobody is held out. Then test takes the patient with the highest u from train (without
  test, val takes the lowest u). More patients can only send this patient back to train,
  when another patient's u is held out or a new patient's u is the highest: **nobody
  moves from train to a held-out split**.
- Nobody is in train (four patients: one dataset in five at equal shares, one in 600 at
  0.8). Then train takes the nearest held-out patient, who goes back when patients are
  added.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from common.errors import UserError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deal:
    """How patients, or their slices, are dealt to train, val and test.

    Attributes:
      seed: seed of the hash.
      fractions: shares of train, val and test; 0 leaves a split out.
      by: 'patient', or 'slice': the first part of each patient's slices is for train,
        the last for test. Use it only to try one or two patients: the splits leak.
      val_patients: names of patients. If val_patients or test_patients are given, they
        replace the hash, and all other patients are for train.
      test_patients: names of patients.
    """

    seed: int = 0
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    by: Literal["patient", "slice"] = "patient"
    val_patients: tuple[str, ...] = ()
    test_patients: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks that the fields agree with each other."""
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise UserError(
                "fractions of train, val, test must add up to 1, none below 0 "
                f"(config.data.split); got {self.fractions}."
            )
        if twice := sorted(set(self.val_patients) & set(self.test_patients)):
            raise UserError(
                f"{', '.join(twice)}: both in config.data.val_patients and in "
                "config.data.test_patients; name each once."
            )
        if self.names_patients and self.by == "slice":
            raise UserError(
                "config.data.split_by=slice: got config.data.val_patients or "
                "config.data.test_patients too; give one or the other."
            )

    @property
    def names_patients(self) -> bool:
        """Whether the held-out patients are named."""
        return bool(self.val_patients or self.test_patients)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The splits with a share above 0."""
        shares = zip(SPLITS, self.fractions, strict=True)
        return tuple(split for split, share in shares if share > 0)


class Splits(NamedTuple):
    """The result of a deal.

    Attributes:
      patients: names of the patients of each split, sorted.
      warnings: one sentence for each exception and each empty split.
    """

    patients: dict[str, list[str]]
    warnings: tuple[str, ...]


def deal_patients(
    patients: Iterable[str], deal: Deal, *, unusable: Iterable[str] = ()
) -> Splits:
    """Deals whole patients to train, val and test; see the module.

    Args:
      patients: names of all patients.
      deal: how to deal them.
      unusable: patients without usable volumes; `deal` may name them.

    Raises:
      UserError: There are fewer patients than splits, or no patient has a given name.
    """
    names = sorted(set(patients))
    if deal.names_patients:
        return _deal_named(names, deal, sorted(set(unusable)))
    return _deal_hashed(names, deal)


def _deal_named(names: list[str], deal: Deal, unusable: list[str]) -> Splits:
    result, warnings = {}, []
    for split, wanted in (("val", deal.val_patients), ("test", deal.test_patients)):
        key = f"config.data.{split}_patients"
        if unknown := sorted(set(wanted) - set(names) - set(unusable)):
            raise UserError(
                f"{key}: no patient {', '.join(map(repr, unknown))}; there are "
                f"{_joined(names)}. Give names of these."
            )
        result[split] = sorted(set(wanted) & set(names))
        for patient in sorted(set(wanted) & set(unusable)):
            warnings.append(f"{key}: nothing of {patient!r} can be used")
        if wanted and not result[split]:
            raise UserError(f"{key}: nothing of {_joined(wanted)} can be used.")
    held_out = {*result["val"], *result["test"]}
    result["train"] = [name for name in names if name not in held_out]
    return Splits({split: result[split] for split in SPLITS}, tuple(warnings))


def _deal_hashed(names: list[str], deal: Deal) -> Splits:
    if len(names) < len(deal.wanted):
        raise UserError(
            f"{len(names)} patient(s) ({_joined(names)}) for {len(deal.wanted)} splits "
            f"({', '.join(deal.wanted)}): each split needs a patient. {_ADVICE}"
        )
    place = {name: hash_place(name, deal.seed) for name in names}
    _, val, test = deal.fractions
    result: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, u in place.items():
        low, high = u < val, test > 0 and u >= 1 - test
        result["val" if low else "test" if high else "train"].append(name)
    warnings = []
    held_out = [split for split in ("val", "test") if split in deal.wanted]
    if held_out and "train" in deal.wanted and not any(result[s] for s in held_out):
        warnings.append(_fill_held_out(result, place, held_out[-1]))
    if "train" in deal.wanted and not result["train"]:
        warnings.append(_fill_train(result, place, deal))
    warnings += [
        f"{split} is empty: the hash puts none of {len(names)} patients into it. "
        f"Choose patients with config.data.{split}_patients"
        for split in held_out
        if not result[split]
    ]
    return Splits({split: sorted(result[split]) for split in SPLITS}, tuple(warnings))


def _fill_held_out(
    result: dict[str, list[str]], place: Mapping[str, float], split: str
) -> str:
    """Moves a patient from train, which has all, to `split`; returns a warning."""
    # Val's interval lies below train's, test's above it.
    nearest = min if split == "val" else max
    taken = nearest(result["train"], key=place.__getitem__)
    result["train"].remove(taken)
    result[split].append(taken)
    return (
        f"nobody would be held out: {split} takes patient {taken!r} from train; with "
        "more patients this one may go back. Choose patients for good with "
        f"config.data.{split}_patients"
    )


def _fill_train(
    result: dict[str, list[str]], place: Mapping[str, float], deal: Deal
) -> str:
    """Moves a held-out patient to train, which has none; returns a warning."""
    _, val, test = deal.fractions
    distance = {name: max(val - u, u - (1 - test)) for name, u in place.items()}
    donor = max(("val", "test"), key=lambda split: len(result[split]))
    taken = min(result[donor], key=distance.__getitem__)
    result[donor].remove(taken)
    result["train"].append(taken)
    return (
        f"train would be empty and takes patient {taken!r} from {donor}; with more "
        "patients this one goes back, and a network trained before has then seen it. "
        "Name the held-out patients: config.data.val_patients, "
        "config.data.test_patients"
    )


_ADVICE = (
    "Add patients (a folder each), name the held-out ones (config.data.val_patients, "
    "config.data.test_patients), leave splits out (config.data.split=(1.0, 0.0, 0.0) "
    "trains on all), or give config.data.split_by=slice, which splits each patient's "
    "slices; scores are then too good for new patients."
)


def hash_place(patient: str, seed: int) -> float:
    """Returns a patient's u: SHA-256 of 'seed:name' over 2^256."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    # A float holds 53 bits exactly, so the result is never rounded up to 1.
    return (int.from_bytes(digest) >> 203) / 2**53


def _joined(names: Sequence[str]) -> str:
    """Returns names for a message, at most the first 20."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
