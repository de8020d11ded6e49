"""The cheapest choices that fit, against all choices."""

import itertools

import numpy as np
import pytest

from acq.quantization.knapsack import least_cost_choice


def every_choice(sizes, costs, most):
    """Returns the least cost of all choices that fit."""
    return min(
        sum(of_item[i] for of_item, i in zip(costs, places, strict=True))
        for places in itertools.product(*(range(len(s)) for s in sizes))
        if sum(of_item[i] for of_item, i in zip(sizes, places, strict=True)) <= most
    )


def total(values, places):
    return sum(of_item[i] for of_item, i in zip(values, places, strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_best_of_all_choices(seed):
    rng = np.random.default_rng(seed)
    items, choices = rng.integers(1, 5), rng.integers(1, 6)
    step = int(rng.integers(1, 9))  # all sizes above the smallest are its multiples
    sizes = np.cumsum(rng.integers(0, 40, (items, choices)) * step, axis=1).tolist()
    # Costs that also grow with the size, as measured ones may.
    costs = rng.random((items, choices)).tolist()
    least, largest = (sum(of_item[i] for of_item in sizes) for i in (0, -1))
    for most in {least, *rng.integers(least, largest + 10, 4).tolist()}:
        places = least_cost_choice(sizes, costs, most)
        assert total(sizes, places) <= most
        # Sums of a few numbers below 1, added in another order.
        assert total(costs, places) == pytest.approx(
            every_choice(sizes, costs, most), abs=1e-12
        )


def test_large_rooms_are_filled_but_for_a_unit_an_item():
    rng = np.random.default_rng(0)
    weights = rng.integers(1_000, 3_000_000, 60)
    sizes = [[-(-int(n) * b // 8) for b in range(2, 9)] for n in weights]
    # Rounding error falls to a quarter with each bit.
    costs = [[float(s) * 4.0**-b for b in range(2, 9)] for s in rng.random(60)]
    least = sum(of_item[0] for of_item in sizes)
    for most in (least, least + 1, 2 * least):
        places = least_cost_choice(sizes, costs, most)
        assert total(sizes, places) <= most
    unit = least / 2**16
    smallest_step = min(
        b - a for of_item in sizes for a, b in itertools.pairwise(of_item)
    )
    assert most - total(sizes, places) <= 60 * unit + smallest_step
    # No two layers could trade a bit for a bit at less cost and no more bytes.
    for i, j in itertools.permutations(range(60), 2):
        a, b = places[i], places[j]
        if a == 6 or b == 0:
            continue
        grown = sizes[i][a + 1] - sizes[i][a] - (sizes[j][b] - sizes[j][b - 1])
        gained = costs[i][a] - costs[i][a + 1] - (costs[j][b - 1] - costs[j][b])
        assert grown > -2 * unit or gained <= 0


def test_of_equal_costs_the_last_counts():
    assert least_cost_choice([[1, 2, 3]], [[1.0, 0.0, 0.0]], 9) == (2,)
    assert least_cost_choice([[1, 2, 3]], [[1.0, 0.0, 0.0]], 2) == (1,)
    assert least_cost_choice([[1, 2], [5, 9]], [[0.0, 0.0]] * 2, 100) == (1, 1)
    assert least_cost_choice([[1, 2], [1, 2]], [[0.0, 0.0]] * 2, 3) == (0, 1)
    assert least_cost_choice([], [], 0) == ()


@pytest.mark.parametrize(
    ("sizes", "costs", "said"),
    [
        ([[3, 5]], [[1.0, 0.0]], "need 1 more than 2"),
        ([[2, 1]], [[1.0, 0.0]], "first choice"),
        ([[1, 2]], [[1.0, float("nan")]], "finite"),
    ],
)
def test_impossible_choices_are_refused(sizes, costs, said):
    with pytest.raises(ValueError, match=said):
        least_cost_choice(sizes, costs, 2)
