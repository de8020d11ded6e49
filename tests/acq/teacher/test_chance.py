import numpy as np
import pytest

from acq.accuracy import Accuracy
from acq.teacher.chance import compare_with_chance, fewest_judged, renamed_classes


@pytest.mark.parametrize(
    ("correct", "n", "classes", "found"),
    [
        (100, 1000, 10, "at_chance"),
        (137, 1000, 10, "at_chance"),  # 100 + 4 sqrt(1000 x 0.1 x 0.9) is 137.9
        (138, 1000, 10, "above"),
        (0, 1000, 10, "at_chance"),
        (5, 1000, 1000, "above"),  # 1 + 4 sqrt(1000 x 0.001 x 0.999) is 4.998
        (4, 1000, 1000, "at_chance"),
        (9, 10, 10, "above"),
        (1, 10, 10, "too_few"),
        (40, 50, 2, "above"),
        (30, 50, 2, "too_few"),
        (0, 1, 10, "too_few"),
    ],
)
def test_better_than_guessing_is_by_four_standard_errors(correct, n, classes, found):
    assert compare_with_chance(Accuracy(correct, n), classes) == found


@pytest.mark.parametrize(("classes", "count"), [(2, 223), (10, 51), (1000, 19)])
def test_so_many_images_tell_half_right_from_guessing(classes, count):
    assert fewest_judged(classes) == count
    half = Accuracy(round(count * (1 + 1 / classes) / 2), count)
    assert compare_with_chance(half, classes) == "above"


def _seen(order, n=200, right=0.9, seed=0):
    """Labels, and a classifier's classes that are right under other names."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(order)
    given = np.where(rng.random(n) < right, labels, rng.integers(0, len(order), n))
    return np.asarray(order)[given], labels


def test_another_order_of_labels_is_told():
    given, labels = _seen([1, 2, 3, 4, 0])
    correct, names = renamed_classes(given, labels)
    assert names == {0: 1, 1: 2, 2: 3, 3: 4, 4: 0}
    assert correct == np.sum(given == (labels + 1) % 5)
    given, labels = _seen([0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9])
    assert set(renamed_classes(given, labels).names) == set(range(2, 12))


@pytest.mark.parametrize(
    "seen",
    [
        _seen(range(5)),
        _seen(range(5), right=0.2),
        _seen(range(5), right=0),
        _seen([1, 2, 3, 4, 0], n=40),  # 8 images a class
        (np.zeros(50, int), np.arange(50) % 5),  # one class for all
        (np.full(50, -1), np.arange(50) % 5),  # no finite logits
    ],
    ids=["right", "weak", "guessing", "few", "constant", "not finite"],
)
def test_nothing_is_told_of_labels_that_are_right_or_unknown(seen):
    assert renamed_classes(*seen) is None
