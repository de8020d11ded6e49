"""One choice for every item, with the least total cost within a size: a knapsack."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

# Rooms up to so many units are solved exactly.
_MOST_UNITS = 1 << 16


def least_cost_choice(
    sizes: Sequence[Sequence[int]], costs: Sequence[Sequence[float]], most: int
) -> tuple[int, ...]:
    """Returns the index of each item's choice: the least total cost, sizes <= `most`.

        minimise sum_i costs[i][k_i]    with sum_i sizes[i][k_i] <= most

    Dynamic programming over the room that is left after every item's smallest choice.
    The unit is the largest that divides all sizes above the smallest, so the choice is
    exact for rooms of up to 65,536 units. A larger room is divided into 65,536 units,
    and each item's size above its smallest is rounded up to them: the choice always
    fits, and leaves at most a unit for each item unused. Of choices of equal cost that
    fit, the last is taken, item by item from the last.

    Args:
      sizes: of each item's choices, at least 0; the first is an item's smallest.
      costs: of the same choices, finite.
      most: the largest total size.

    Raises:
      ValueError: the smallest choices are larger than `most`, an item's first choice is
        not its smallest, or a cost is not finite.
    """
    if any(min(of_item) < of_item[0] for of_item in sizes):
        raise ValueError("the first choice of every item must be its smallest")
    if not all(math.isfinite(cost) for of_item in costs for cost in of_item):
        raise ValueError("costs must be finite")
    room = most - sum(of_item[0] for of_item in sizes)
    if room < 0:
        raise ValueError(f"the smallest choices need {-room} more than {most}")
    above = [[size - of_item[0] for size in of_item] for of_item in sizes]
    unit = max(math.gcd(*(s for of_item in above for s in of_item)), 1)
    unit = max(unit, -(-room // _MOST_UNITS))
    units = [[-(-size // unit) for size in of_item] for of_item in above]
    return _choices(units, costs, min(room // unit, sum(map(max, units))))


def _choices(
    units: Sequence[Sequence[int]], costs: Sequence[Sequence[float]], room: int
) -> tuple[int, ...]:
    """The best choices whose units are at most `room`."""
    best = np.zeros(room + 1)  # of the items so far, for every room
    taken = []
    for of_item, cost in zip(units, costs, strict=True):
        best, choice = _with_item(best, of_item, cost)
        taken.append(choice)
    left, found = room, []
    for of_item, choice in zip(reversed(units), reversed(taken), strict=True):
        found.append(int(choice[left]))
        left -= of_item[found[-1]]
    return tuple(reversed(found))


def _with_item(
    best: Float64[np.ndarray, "n"], units: Sequence[int], costs: Sequence[float]
) -> tuple[Float64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """The best cost with one more item for every room, and its choice."""
    tried = np.full((len(units), len(best)), np.inf)
    for row, size, cost in zip(tried, units, costs, strict=True):
        if size < len(best):
            row[size:] = best[: len(best) - size] + cost
    last = len(units) - 1 - np.argmin(tried[::-1], axis=0)
    return np.min(tried, axis=0), last
