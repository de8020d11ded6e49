"""Nested mappings: their leaves, and what two of them differ in."""

from common.config import ConfigDict
from common.nested import NOT_STATED, differences, flatten

NESTED = {"seed": 0, "train": {"steps": 10, "patch": {"size": [8, 8]}}}
LEAVES = [("seed", 0), ("train.steps", 10), ("train.patch.size", [8, 8])]


def test_leaves_have_the_keys_of_all_sections():
    assert list(flatten(NESTED)) == LEAVES
    assert dict(flatten(ConfigDict(NESTED))) == dict(LEAVES)
    assert dict(flatten({"a": 1}, "config.")) == {"config.a": 1}


def test_equal_mappings_have_no_difference_whatever_their_nesting():
    assert differences(NESTED, dict(LEAVES)) == []
    assert differences({"new": None}, {}) == []


def test_every_leaf_that_differs_is_told_with_both_values():
    now = {"train": {"steps": 20, "patch": {"size": [8, 8]}}, "dose": 0.5}
    assert differences(NESTED, now) == [
        ("train.steps", 10, 20),
        ("dose", NOT_STATED, 0.5),
        ("seed", 0, NOT_STATED),
    ]
