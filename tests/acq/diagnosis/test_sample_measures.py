import numpy as np
import pytest

from acq.diagnosis import sample_measures

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("achieved", "r2", "slope"),
    [
        ([[-1, 0], [1, 0], [0, 2], [0, -2]], 1.0, 1.0),
        ([[0, 0], [0, 0], [0, 0], [0, 0]], 0.0, 0.0),
        ([[-0.5, 0], [0.5, 0], [0, 1], [0, -1]], 0.75, 0.5),
        ([[1, 0], [-1, 0], [0, -2], [0, 2]], -3.0, -1.0),
        # As requested, but for a constant: followed, and missed by 1 in 10 / 4.
        ([[0, 0], [2, 0], [1, 2], [1, -2]], 0.6, 1.0),
    ],
)
def test_r_squared_and_slope_of_literal_centres(achieved, r2, slope):
    requested = np.array([[-1, 0], [1, 0], [0, 2], [0, -2]], np.float32)
    achieved = np.array(achieved, np.float32)
    assert sample_measures.r_squared(achieved, requested) == pytest.approx(r2)
    assert sample_measures.slope(achieved, requested) == pytest.approx(slope)


def test_nothing_is_said_of_requests_that_are_all_the_same():
    requested = np.zeros((4, 2), np.float32)
    assert sample_measures.r_squared(requested + 1, requested) is None
    assert sample_measures.slope(requested + 1, requested) is None


def test_spread_in_class_is_the_deviation_of_independent_draws():
    label = np.repeat(RNG.integers(0, 3, 900), 2)
    deviation = np.array([0.5, 1.0, 3.0])[label]
    # Pairs lie close together, classes far apart: neither may count.
    pair = np.repeat(RNG.normal(size=(900, 2)), 2, axis=0)
    values = 100.0 * label[:, None] + deviation[:, None] * pair
    found = sample_measures.spread_in_class(values, label)
    assert found == pytest.approx(1.5, rel=0.05)


def test_a_class_with_one_pair_has_no_spread():
    values = RNG.normal(size=(4, 2))
    assert sample_measures.spread_in_class(values, np.array([0, 0, 1, 1])) is None


def _squared(samples):
    apart = samples[:, :, None] - samples[:, None]
    return np.mean(np.square(apart), axis=-1)


def test_noise_has_a_variety_of_one():
    samples = RNG.normal(size=(5, 20, 300))
    label = np.repeat(RNG.integers(0, 3, (5, 10)), 2, axis=1)
    found = sample_measures.variety(_squared(samples), label, 3)
    for value in (found.overall, found.in_pair, *found.in_class):
        assert value == pytest.approx(1, rel=0.03)


def test_variety_is_that_of_every_comparison_by_itself():
    samples, label = RNG.normal(size=(3, 8, 5)), np.zeros((3, 8), int)
    label[:, 4:] = [[1] * 4, [1, 1, 2, 2], [2] * 4]
    overall, in_pair, in_class = [], [], {0: [], 1: [], 2: []}
    for batch, labels in zip(samples, label, strict=True):
        for i in range(8):
            for j in range(i):
                squared = np.mean((batch[i] - batch[j]) ** 2)
                if i // 2 == j // 2:
                    in_pair.append(squared)
                    continue
                overall.append(squared)
                if labels[i] == labels[j]:
                    in_class[labels[i]].append(squared)
    found = sample_measures.variety(_squared(samples), label, 4)
    expected = [np.sqrt(np.mean(x) / 2) for x in (overall, in_pair, *in_class.values())]
    np.testing.assert_allclose(
        [found.overall, found.in_pair, *found.in_class[:3]], expected
    )
    assert np.isnan(found.in_class[3])


def test_one_pair_has_only_a_variety_in_pair():
    samples = RNG.normal(size=(1, 2, 5))
    found = sample_measures.variety(_squared(samples), np.zeros((1, 2), int), 1)
    assert found.overall is None and np.isnan(found.in_class).all()
    assert found.in_pair is not None and found.in_pair > 0
