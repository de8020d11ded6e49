import itertools

import numpy as np
import pytest

from common.errors import UserError
from ipv2.datasets.splits import SPLITS, Deal, deal_patients, hash_place

SHARES = [
    (0.8, 0.1, 0.1),
    (0.7, 0.15, 0.15),
    (0.34, 0.33, 0.33),
    (0.5, 0.5, 0.0),
    (0.9, 0.0, 0.1),
]


def _names(count):
    return [f"p{index}" for index in range(count)]


def _deal(patients, **options):
    return deal_patients(patients, Deal(**options)).patients


@pytest.mark.parametrize("fractions", SHARES)
def test_every_patient_is_in_one_split_some_for_train_and_some_held_out(fractions):
    for count in (4, 7, 30):
        for seed in range(20):
            splits = _deal(_names(count), seed=seed, fractions=fractions)
            everyone = itertools.chain.from_iterable(splits.values())
            assert sorted(everyone) == sorted(_names(count))
            assert splits["train"] and (splits["val"] or splits["test"])
            for split, share in zip(SPLITS, fractions, strict=True):
                assert share > 0 or not splits[split]


def test_the_deal_follows_the_shares_the_seed_and_not_the_order():
    names = _names(4000)
    splits = _deal(names, fractions=(0.5, 0.3, 0.2))
    counts = [len(splits[split]) for split in SPLITS]
    # Four standard deviations of a binomial share.
    np.testing.assert_allclose(counts, [2000, 1200, 800], atol=4 * np.sqrt(1000))
    assert splits == _deal(names[::-1], fractions=(0.5, 0.3, 0.2))
    assert splits != _deal(names, seed=1, fractions=(0.5, 0.3, 0.2))


def test_the_hash_is_the_documented_one():
    # printf 0:p1 | sha256sum
    assert hash_place("p1", 0) == pytest.approx(0xFC7902413132B41D / 2**64, abs=1e-15)
    places = [hash_place(name, 0) for name in _names(1000)]
    assert 0 <= min(places) < 0.01 and 0.99 < max(places) < 1


@pytest.mark.parametrize("fractions", SHARES)
def test_adding_patients_never_takes_one_from_train(fractions):
    """The promise of the module, on many random datasets that grow."""
    rng = np.random.default_rng(0)
    back = 0
    for seed in range(60):
        deal = Deal(seed=seed, fractions=fractions)
        names = [f"q{number}" for number in rng.permutation(40)]
        before = lent = None
        for count in range(3, 25):
            dealt = deal_patients(names[:count], deal)
            now = {p: split for split, who in dealt.patients.items() for p in who}
            moved = {p for p, s in (before or {}).items() if now[p] != s}
            if lent == "train":  # the only case without a promise
                moved = set()
            # At most the patient who filled a held-out split moves, back to train.
            assert moved <= ({lent} if lent else set()), (seed, count, moved)
            assert all(now[patient] == "train" for patient in moved)
            back += len(moved)
            lent = None
            for warning in dealt.warnings:
                if "nobody would be held out" in warning:
                    lent = warning.split("patient '")[1].split("'")[0]
                elif "train would be empty" in warning:
                    lent = "train"
            before = now
    assert back > 0, "nobody ever filled a split: the test proves nothing"


def test_adding_patients_moves_none_once_some_are_held_out():
    deal = Deal(fractions=(0.6, 0.2, 0.2))
    before = {}
    for count in range(4, 60):
        dealt = deal_patients(_names(count), deal)
        now = {p: split for split, who in dealt.patients.items() for p in who}
        assert not any("takes" in warning for warning in dealt.warnings)
        assert before.items() <= now.items()
        before = now
    assert all(dealt.patients[split] for split in SPLITS)


def test_an_empty_held_out_split_is_filled_with_a_warning_that_names_the_key():
    deal = Deal(fractions=(0.98, 0.01, 0.01))
    patients, warnings = deal_patients(_names(5), deal)
    ordered = sorted(_names(5), key=lambda name: hash_place(name, 0))
    assert patients["val"] == [] and patients["test"] == [ordered[-1]]
    filled, empty = warnings
    assert f"test takes patient {ordered[-1]!r} from train" in filled
    assert "config.data.test_patients" in filled
    assert "val is empty" in empty and "config.data.val_patients" in empty


def test_train_is_never_left_empty():
    deal = Deal(fractions=(0.02, 0.49, 0.49))
    patients, warnings = deal_patients(_names(4), deal)
    assert len(patients["train"]) == 1 and len(patients["val"] + patients["test"]) == 3
    assert "train would be empty and takes patient" in warnings[0]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_patients_than_splits_are_refused_with_keys(count):
    with pytest.raises(UserError) as error:
        _deal(_names(count))
    for text in (f"{count} patient(s)", "config.data.test_patients", "split_by=slice"):
        assert text in str(error.value)
    assert "config.data.split=(1.0, 0.0, 0.0)" in str(error.value)


def test_one_split_may_take_all_patients():
    for index, split in enumerate(SPLITS):
        fractions = [0.0, 0.0, 0.0]
        fractions[index] = 1.0
        dealt = _deal(_names(3), fractions=tuple(fractions))
        assert dealt[split] == _names(3)
        assert _deal(["p1"], fractions=tuple(fractions))[split] == ["p1"]


def test_named_patients_alone_are_held_out():
    dealt = _deal(_names(4), val_patients=("p2",), test_patients=("p0", "p3"))
    assert dealt == {"train": ["p1"], "val": ["p2"], "test": ["p0", "p3"]}
    dealt = _deal(_names(2), test_patients=("p0",))
    assert dealt == {"train": ["p1"], "val": [], "test": ["p0"]}


def test_an_unknown_name_is_refused_and_an_unusable_one_warns():
    deal = Deal(test_patients=("p1", "p9"))
    with pytest.raises(
        UserError,
        match=r"config\.data\.test_patients: no patient 'p9'; there are p0, p1",
    ):
        deal_patients(_names(2), deal)
    dealt = deal_patients(_names(2), deal, unusable=["p9"])
    assert dealt.patients["test"] == ["p1"]
    assert "nothing of 'p9' can be used" in dealt.warnings[0]
    with pytest.raises(UserError, match=r"test_patients: nothing of p9 can be used"):
        deal_patients(_names(2), Deal(test_patients=("p9",)), unusable=["p9"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fractions": (0.5, 0.1, 0.1)}, "add up to 1"),
        ({"fractions": (1.2, -0.1, -0.1)}, "none below 0"),
        ({"val_patients": ("a",), "test_patients": ("a", "b")}, "a: both in"),
        ({"val_patients": ("a",), "by": "slice"}, "one or the other"),
    ],
)
def test_a_deal_that_contradicts_itself_is_refused(options, text):
    with pytest.raises(UserError, match=text):
        Deal(**options)
