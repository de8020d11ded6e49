"""Who is in train, val and test: whole patients, dealt by a hash or named.

A patient's u is the SHA-256 of seed and name, as a number in [0, 1). With shares
(f_train, f_val, f_test):

    val if u < f_val, test if u >= 1 - f_test, else train

so that a patient's split follows from the name alone, and adding patients moves none.
The one exception are small data sets, in which a split that is wanted would stay empty:
it takes the patient whose u lies nearest to its interval, of the other held-out split
where that has two or more, else of train. Since val lies below train and test above it,
the two never want the same patient of train, unless it is the last.

What adding patients can then do: whoever filled a held-out split may go back, and of
two patients of one held-out split one may fill the other. **Nobody goes from train to a
held-out split**: train gives val its lowest u only while val has nobody of its own and
test fewer than two, which more patients can only end, and a newcomer is the lowest u
or leaves it to who was. The same holds for test and the highest u. Train itself is
never filled, since that could not hold then.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from common.errors import UserError

SPLITS = ("train", "val", "test")
_OTHER = {"val": "test", "test": "val"}


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
      UserError: there are fewer patients than splits, none for train, or a name that
        nobody has.
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
    for split in ("val", "test"):
        if split not in deal.wanted or result[split]:
            continue
        donor = "train" if len(result[_OTHER[split]]) < 2 else _OTHER[split]
        if not result[donor]:
            continue
        # Val's interval lies below all others, test's above them.
        nearest = min if split == "val" else max
        taken = nearest(result[donor], key=place.__getitem__)
        result[donor].remove(taken)
        result[split].append(taken)
        warnings.append(
            f"{split} would be empty and takes patient {taken!r} from {donor}; with "
            f"more patients this one may go back. config.data.{split}_patients names "
            "who stays"
        )
    if empty := [split for split in deal.wanted if not result[split]]:
        raise UserError(
            f"{len(names)} patients ({_listed(names)}) and nobody for "
            f"{', '.join(empty)}: by the hash of their names and config.seed="
            f"{deal.seed} all are elsewhere. Give another config.seed. Or: {_WAYS_OUT}"
        )
    return Dealt({split: sorted(result[split]) for split in SPLITS}, tuple(warnings))


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
