"""The dose at which d' of one curve reaches a target, such as d' at full dose.

d' of a denoiser's outputs is known at a few doses. The denoiser's equivalent dose is
the one at which its curve reaches d' of the undenoised image at full dose: 0.25 says
that a quarter of the dose shows a nodule as well. The curve of undenoised images and
the d' of an output give the dose that the output is worth.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ipv2.measures.observer import Detectability

_RESAMPLED, _PERCENT = 4000, (2.5, 97.5)
# Ends of a 95 % interval, in standard deviations from its middle.
_DEVIATIONS = 1.959963984540054


class EquivalentDose(NamedTuple):
    """A dose with its interval.

    Attributes:
      dose: share of normal dose; None if the target is reached at the lowest dose
        already or there are no numbers; infinite if no dose reaches it.
      low: lower end of the 95 % interval; 0 if that is below the lowest dose.
      high: upper end; infinite if that is above the highest dose.
      note: says in words what could not be measured, or is empty.
    """

    dose: float | None
    low: float
    high: float
    note: str


def equivalent_dose(
    curve: Mapping[float, Detectability], target: Detectability, *, seed: int = 0
) -> EquivalentDose:
    """Returns the lowest dose at which the curve reaches the target.

    The curve is made monotone first, by isotonic regression with weights of 1 /
    variance (pool adjacent violators: Barlow et al. 1972): d' cannot fall with dose,
    and where it seems to, that is noise, or a denoiser that was trained for another
    dose. Between doses d' is linear in the logarithm of the dose. Nothing is
    extrapolated.

    The interval repeats this 4,000 times, with each d' drawn from a normal distribution
    of its interval's width, as if all were independent. Where curve and target share
    places and noise, the interval is too wide.

    Args:
      curve: {dose as a share of normal dose, above 0: d'}, two doses or more. Doses
        whose d' is None do not count.
      target: d' to reach.
      seed: of the drawing.

    Raises:
      ValueError: A dose is not above 0, or there are fewer than two.
    """
    if len(curve) < 2 or not all(dose > 0 for dose in curve):
        raise ValueError(
            f"doses: got {sorted(curve)}, accepted: two or more, above 0, as shares of "
            "normal dose"
        )
    known = sorted((dose, d) for dose, d in curve.items() if d.value is not None)
    if target.value is None or len(known) < 2:
        return EquivalentDose(None, 0.0, math.inf, "too few places for d'")
    doses = np.array([dose for dose, _ in known])
    values, deviations = np.array([_normal(d) for _, d in known]).T
    goal, goal_deviation = _normal(target)
    weights = 1 / np.maximum(deviations, 1e-9) ** 2
    rng = np.random.default_rng(seed)
    drawn = rng.normal(values, deviations, (_RESAMPLED, len(values)))
    goals = rng.normal(goal, goal_deviation, _RESAMPLED)
    found = [
        _crossing(doses, _monotone(v, weights), g)
        for v, g in zip(drawn, goals, strict=True)
    ]
    # Ends may be infinite: percentiles by order, without interpolation.
    low, high = np.percentile(found, _PERCENT, method="nearest")
    dose = _crossing(doses, _monotone(values, weights), goal)
    if math.isinf(dose):
        note = f"not reached at the highest dose, {doses[-1]:g}"
        return EquivalentDose(math.inf, float(low), math.inf, note)
    if dose == 0:
        note = f"reached at the lowest dose already, {doses[0]:g}"
        return EquivalentDose(None, 0.0, float(high), note)
    return EquivalentDose(dose, float(low), float(high), "")


def _normal(d: Detectability) -> tuple[float, float]:
    """Returns d' and its standard deviation, from the interval's width."""
    if d.value is None or d.low is None or d.high is None:
        raise ValueError(f"d' without an interval: {d}")
    return d.value, (d.high - d.low) / (2 * _DEVIATIONS)


def _monotone(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the nearest values that do not fall, in weighted least squares."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, total, count = float(value), float(weight), 1
        while blocks and blocks[-1][0] >= mean:
            before, before_weight, before_count = blocks.pop()
            mean = (before * before_weight + mean * total) / (before_weight + total)
            total, count = total + before_weight, count + before_count
        blocks.append((mean, total, count))
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def _crossing(doses: np.ndarray, values: np.ndarray, goal: float) -> float:
    """Returns the lowest dose whose d' is the goal; 0 below the doses, inf above."""
    if goal < values[0]:
        return 0.0
    if goal > values[-1]:
        return math.inf
    after = int(np.searchsorted(values, goal, side="left"))
    if after == 0:
        return float(doses[0])
    low, high = values[after - 1], values[after]
    share = (goal - low) / (high - low)
    return float(doses[after - 1] * (doses[after] / doses[after - 1]) ** share)
