import itertools

import numpy as np
import pytest
from scipy import stats

from acq.report.intervals import paired_difference, unpaired_difference, wilson


@pytest.mark.parametrize(
    ("correct", "n", "expected"),
    [
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
        (81, 263, (25.53, 36.62)),
        (15, 148, (6.24, 16.05)),
        (0, 20, (0, 16.11)),
        (1, 29, (0.61, 17.18)),
    ],
)
def test_wilsons_interval_is_the_published_one(correct, n, expected):
    assert wilson(correct, n) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("n", [1, 2, 7, 10_000])
def test_wilsons_interval_holds_its_share_and_is_within_0_and_100(n):
    for correct in {0, 1, n // 2, n - 1, n}:
        low, high = wilson(correct, n)
        assert 0 <= low <= 100 * correct / n <= high <= 100 and high > low
    assert wilson(0, n)[0] == 0 and wilson(n, n)[1] == 100


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_that_are_no_share_are_refused(correct, n):
    with pytest.raises(ValueError, match=f"got {correct} of {n}"):
        wilson(correct, n)


def test_a_paired_difference_is_that_of_the_images_only_one_has_right():
    found = paired_difference(40, 10, 1000)
    assert found.points == pytest.approx(3.0)
    # By hand: 30 / 1002 -+ 1.96 sqrt(51 - 900 / 1002) / 1002.
    assert found.low == pytest.approx(2.994 - 1.3845, abs=0.001)
    assert found.high == pytest.approx(2.994 + 1.3845, abs=0.001)
    assert found.p == pytest.approx(stats.binomtest(40, 50).pvalue)
    assert found.shows and found.n == 1000
    opposite = paired_difference(10, 40, 1000)
    assert (opposite.low, opposite.high) == pytest.approx((-found.high, -found.low))


def test_pairs_without_a_difference_show_none():
    same = paired_difference(0, 0, 50)
    assert same.points == 0 and same.p == 1 and same.low < 0 < same.high
    assert not same.shows
    assert not paired_difference(5, 5, 100).shows


@pytest.mark.parametrize("n", [1, 3, 40])
def test_paired_intervals_hold_the_difference(n):
    for first, second in itertools.product(range(n + 1), repeat=2):
        if first + second <= n:
            found = paired_difference(first, second, n)
            assert -100 <= found.low <= found.points <= found.high <= 100


@pytest.mark.parametrize(("first", "second", "n"), [(3, 3, 5), (-1, 0, 5), (0, 0, 0)])
def test_pairs_that_are_no_counts_are_refused(first, second, n):
    with pytest.raises(ValueError, match=f"got {first} and {second} of {n}"):
        paired_difference(first, second, n)


@pytest.mark.parametrize(
    ("first", "second", "n", "expected"),
    [
        # Newcombe, Statistics in Medicine 17, 1998 (differences), table II, method 10.
        (10, 0, 10, (60.75, 100)),
        (10, 10, 10, (-27.75, 27.75)),
    ],
)
def test_newcombes_interval_is_the_published_one(first, second, n, expected):
    found = unpaired_difference(first, second, n)
    assert found.p is None
    assert (found.low, found.high) == pytest.approx(expected, abs=0.005)


def test_pairs_tell_more_than_independent_images():
    # 900 and 870 of 1,000, of which 860 are the same.
    paired, apart = paired_difference(40, 10, 1000), unpaired_difference(900, 870, 1000)
    assert paired.points == apart.points
    assert paired.high - paired.low < apart.high - apart.low


@pytest.mark.slow
def test_paired_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    # Shares of images: only the first right, only the second right, all others.
    drawn = rng.multinomial(500, (0.06, 0.04, 0.9), size=1000)
    held = [
        found.low <= 2 <= found.high
        for found in (paired_difference(int(b), int(c), 500) for b, c, _ in drawn)
    ]
    # The share of 1,000 has an sd of 0.7 %.
    assert np.mean(held) == pytest.approx(0.95, abs=0.021)
