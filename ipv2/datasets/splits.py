"""Who is in train, val and test: whole patients, dealt by a hash or named.

A patient's u is the SHA-256 of seed and name, as a number in [0, 1). With shares
(f_train, f_val, f_test):

    val if u < f_val, test if u >= 1 - f_test, else train

so that a patient's split follows from the name alone, and adding patients moves none.
Val or test may stay empty in a small data set, which a warning says; the other one is
then measured on.

Two exceptions keep small data sets of use, each with a warning that names the patient:
- Nobody is held out: test takes the highest u of train (val, without test, the lowest).
  More patients can only send this one back to train, once somebody's own u is held out
  or a newcomer's is the highest: **nobody goes from train to a held-out split**.
- Nobody is left for train (of four patients at equal shares one set in five, at 0.8 one
  in 600): it takes the nearest of the held-out ones, who goes back when patients come.
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
      seed: of the hash.
      fractions: shares of train, val and test; 0 leaves a split out.
      by: 'patient', or 'slice': of each patient's slices the first part is for train,
        the last for test. Only for a look at one or two patients: the scores leak.
      val_patients: names; if these or the next are given they alone decide, and all
        others are for train.
      test_patients: names.
    """

    seed: int = 0
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    by: Literal["patient", "slice"] = "patient"
    val_patients: tuple[str, ...] = ()
    test_patients: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks what the fields say together."""
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise UserError(
                "fractions of train, val, test add up to 1, none below 0 "
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


class Dealt(NamedTuple):
    """The outcome.

    Attributes:
      patients: of each split, sorted.
      warnings: what to know of it, a sentence each.
    """

    patients: dict[str, list[str]]
    warnings: tuple[str, ...]


def deal_patients(
    patients: Iterable[str], deal: Deal, *, unusable: Iterable[str] = ()
) -> Dealt:
    """Deals whole patients to train, val and test; see the module.

    Args:
      patients: all there are.
      deal: how.
      unusable: patients of whom nothing can be used; naming them is no mistake.

    Raises:
      UserError: there are fewer patients than splits, or a name that nobody has.
    """
    names = sorted(set(patients))
    if deal.names_patients:
        return _deal_named(names, deal, sorted(set(unusable)))
    return _deal_hashed(names, deal)


def _deal_named(names: list[str], deal: Deal, unusable: list[str]) -> Dealt:
    result, warnings = {}, []
    for split, asked in (("val", deal.val_patients), ("test", deal.test_patients)):
        key = f"config.data.{split}_patients"
        if unknown := sorted(set(asked) - set(names) - set(unusable)):
            raise UserError(
                f"{key}: no patient {', '.join(map(repr, unknown))}; there are "
                f"{_listed(names)}. Give names of these."
            )
        result[split] = sorted(set(asked) & set(names))
        for patient in sorted(set(asked) & set(unusable)):
            warnings.append(f"{key}: nothing of {patient!r} can be used")
        if asked and not result[split]:
            raise UserError(f"{key}: nothing of {_listed(asked)} can be used.")
    held_out = {*result["val"], *result["test"]}
    result["train"] = [name for name in names if name not in held_out]
    return Dealt({split: result[split] for split in SPLITS}, tuple(warnings))


def _deal_hashed(names: list[str], deal: Deal) -> Dealt:
    if len(names) < len(deal.wanted):
        raise UserError(
            f"{len(names)} patient(s) ({_listed(names)}) for {len(deal.wanted)} splits "
            f"({', '.join(deal.wanted)}), which are made by patient. {_WAYS_OUT}"
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
        f"{split} is empty: by the hash of their names none of {len(names)} patients "
        f"is in it. config.data.{split}_patients names who is"
        for split in held_out
        if not result[split]
    ]
    return Dealt({split: sorted(result[split]) for split in SPLITS}, tuple(warnings))


def _fill_held_out(
    result: dict[str, list[str]], place: Mapping[str, float], split: str
) -> str:
    """Gives a held-out split, where all are for train, one; says so in a sentence."""
    # Val's interval lies below train's, test's above it.
    nearest = min if split == "val" else max
    taken = nearest(result["train"], key=place.__getitem__)
    result["train"].remove(taken)
    result[split].append(taken)
    return (
        f"nobody would be held out: {split} takes patient {taken!r} from train; with "
        f"more patients this one may go back. config.data.{split}_patients names who "
        "stays"
    )


def _fill_train(
    result: dict[str, list[str]], place: Mapping[str, float], deal: Deal
) -> str:
    """Gives train, which nobody is in, a held-out patient; says so in a sentence."""
    _, val, test = deal.fractions
    distance = {name: max(val - u, u - (1 - test)) for name, u in place.items()}
    donor = max(("val", "test"), key=lambda split: len(result[split]))
    taken = min(result[donor], key=distance.__getitem__)
    result[donor].remove(taken)
    result["train"].append(taken)
    return (
        f"train would be empty and takes patient {taken!r} from {donor}; with more "
        "patients this one goes back, and a network trained before has then seen it. "
        "Name who is held out: config.data.val_patients, config.data.test_patients"
    )


_WAYS_OUT = (
    "Add patients (a folder each), name who is held out (config.data.val_patients, "
    "config.data.test_patients), leave splits out (config.data.split=(1.0, 0.0, 0.0) "
    "trains on all), or give config.data.split_by=slice, which splits each patient's "
    "slices, so that the scores are too good for new patients."
)


def hash_place(patient: str, seed: int) -> float:
    """A patient's u: SHA-256 of 'seed:name' over 2^256."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    # 53 bits, which a float holds exactly: never rounded up to 1.
    return (int.from_bytes(digest) >> 203) / 2**53


def _listed(names: Sequence[str]) -> str:
    """Names for a message, the first few of many."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
