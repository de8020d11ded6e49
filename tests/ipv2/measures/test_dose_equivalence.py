"""Tests of ipv2.measures.dose_equivalence."""

import math

import numpy as np
import pytest

from ipv2.measures.dose_equivalence import equivalent_dose
from ipv2.measures.observer import Detectability


def _d(value: float | None, reach: float = 0.02) -> Detectability:
    if value is None:
        return Detectability(None, None, None, 3, 3)
    return Detectability(value, value - reach, value + reach, 100, 100)


def _curve(values, reach: float = 0.02):
    doses = (0.02, 0.05, 0.10, 0.25)
    return {dose: _d(v, reach) for dose, v in zip(doses, values, strict=True)}


def test_d_prime_is_linear_in_the_logarithm_of_the_dose():
    found = equivalent_dose(_curve([1, 2, 3, 4]), _d(2.5))
    assert found.dose == pytest.approx(math.sqrt(0.05 * 0.10))
    assert found.low < found.dose < found.high and found.note == ""
    assert equivalent_dose(_curve([1, 2, 3, 4]), _d(2)).dose == pytest.approx(0.05)


def test_the_interval_is_that_of_a_straight_line():
    # d' = log10(dose) + 3: a d' of 2 +- 0.1 is a dose of 0.1 times 10^(+- 0.1).
    curve = {dose: _d(math.log10(dose) + 3, 1e-6) for dose in (0.01, 0.1, 1)}
    found = equivalent_dose(curve, _d(1.5, 0.1))
    assert found.dose == pytest.approx(10**-1.5)
    # Percentiles of 4,000 draws: 3 standard errors of 2 % of the reach.
    assert math.log10(found.high) == pytest.approx(-1.4, abs=0.008)
    assert math.log10(found.low) == pytest.approx(-1.6, abs=0.008)


def test_a_target_outside_the_curve_is_said():
    curve = _curve([1, 2, 3, 4])
    above = equivalent_dose(curve, _d(5))
    assert (above.dose, above.high) == (math.inf, math.inf)
    assert above.note == "not reached at the highest dose, 0.25"
    below = equivalent_dose(curve, _d(0.5))
    assert (below.dose, below.low) == (None, 0)
    assert below.note == "reached at the lowest dose already, 0.02"


def test_an_interval_may_end_outside_the_curve():
    near_top = equivalent_dose(_curve([1, 2, 3, 4], 0.5), _d(3.9, 0.5))
    assert 0.1 < near_top.dose < 0.25 and near_top.high == math.inf
    near_bottom = equivalent_dose(_curve([1, 2, 3, 4], 0.5), _d(1.1, 0.5))
    assert near_bottom.low == 0 and near_bottom.dose > 0.02


def test_a_curve_that_falls_is_made_monotone():
    falling = equivalent_dose(_curve([1, 3, 2, 4]), _d(2.4))
    # The middle two become 2.5.
    assert 0.02 < falling.dose < 0.05
    assert falling.dose == pytest.approx(0.02 * 2.5 ** (1.4 / 1.5))
    # The one known better weighs more: 3 + (2 - 3) 4 / 5.
    curve = _curve([1, 3, 2, 4]) | {0.10: _d(2, 0.01)}
    at = equivalent_dose(curve, _d(2.1)).dose
    assert at == pytest.approx(0.02 * 2.5 ** (1.1 / 1.2))


def test_a_flat_curve_has_its_lowest_dose():
    flat = equivalent_dose(_curve([2, 2, 2, 2]), _d(2))
    assert flat.dose == pytest.approx(0.02)


def test_missing_numbers_are_said():
    few = _curve([1, None, None, None])
    assert equivalent_dose(few, _d(1)) == (None, 0, math.inf, "too few places for d'")
    assert equivalent_dose(_curve([1, 2, 3, 4]), _d(None)).dose is None
    known = equivalent_dose(_curve([1, None, 3, 4]), _d(2))
    assert known.dose == pytest.approx(np.sqrt(0.02 * 0.10))


def test_wrong_doses_are_refused():
    with pytest.raises(ValueError, match="two or more"):
        equivalent_dose({0.1: _d(1)}, _d(1))
    with pytest.raises(ValueError, match="above 0"):
        equivalent_dose({0.0: _d(1), 0.1: _d(2)}, _d(1))
