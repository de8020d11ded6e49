import numpy as np
import pytest

from ipv2.training.stacks import Stacks


def _records(*places, size=2):
    """Returns records; `lq` is filled with the slice's number, `gt` with minus it."""
    return [
        {
            "lq": np.full((size, size), number),
            "gt": np.full((size, size), -number),
            "name": name,
            "patient": name,
            "slice": np.int32(number),
        }
        for name, number in places
    ]


def _stack_of(source, channels, index):
    record = Stacks(source, channels)[index]
    assert record["lq"].shape == (channels, 2, 2)
    np.testing.assert_array_equal(record["gt"], -record["lq"])
    return record["lq"][:, 0, 0].tolist()


VOLUME = _records(("a", 4), ("a", 5), ("a", 6), ("a", 8), ("b", 9))


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, [4, 4, 4, 5, 6]),  # the volume's first slice
        (1, [4, 4, 5, 6, 6]),  # slice 7 is missing
        (2, [4, 5, 6, 6, 6]),
        (3, [8, 8, 8, 8, 8]),  # slice 9 is of another patient, b
        (4, [9, 9, 9, 9, 9]),
    ],
)
def test_neighbours_are_of_the_same_volume_and_the_nearest_repeats(index, expected):
    assert _stack_of(VOLUME, 5, index) == expected


def test_one_channel_is_the_slice_alone():
    assert _stack_of(VOLUME, 1, 2) == [6]


def test_other_keys_are_those_of_the_middle_record():
    stack = Stacks(VOLUME, 3)
    assert len(stack) == 5 and stack[1]["slice"] == 5 and stack[1]["name"] == "a"


def test_slices_of_another_size_are_no_neighbours():
    source = [*_records(("a", 0)), *_records(("a", 1), size=3)]
    assert _stack_of(source, 3, 0) == [0, 0, 0]


@pytest.mark.parametrize("channels", [0, 2, -1])
def test_an_even_number_of_slices_is_refused(channels):
    with pytest.raises(ValueError, match=f"odd number of slices, got {channels}"):
        Stacks([], channels)
