"""Means over slices with intervals, by bootstrap over patients."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_RESAMPLED = 2000
_PERCENT = (2.5, 97.5)


class Summary(NamedTuple):
    """A mean over slices.

    Attributes:
      mean: over the slices that have a value; None without any.
      sd: between slices, n - 1; None below two.
      n: slices that have a value.
      low: lower end of the 95 % interval of the mean; None below two groups.
      high: its upper end.
    """

    mean: float | None
    sd: float | None
    n: int
    low: float | None
    high: float | None


def resampled_groups(patients: Sequence[str]) -> tuple[str, list[str]]:
    """Returns what is resampled, 'patients' or 'slices', and each slice's group.

    Slices of one patient resemble each other, so patients are resampled; of a single
    patient slices are, and the interval says nothing about other patients.
    """
    if len(set(patients)) > 1:
        return "patients", list(patients)
    return "slices", [str(i) for i in range(len(patients))]


def summarise(
    values: Float[np.ndarray, " n"], groups: Sequence[str], *, seed: int = 0
) -> Summary:
    """Returns mean, deviation and a 95 % percentile bootstrap interval of the mean.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3. Groups
    are drawn with replacement, 2,000 times, each with all of its slices.

    Args:
      values: one per slice; NaN where a slice has none.
      groups: of each slice, from `resampled_groups`.
      seed: of the drawing, which is the same for all values of the same groups.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    n = int(known.sum())
    if not n:
        return Summary(None, None, 0, None, None)
    kept = values[known]
    mean = float(kept.mean())
    sd = float(kept.std(ddof=1)) if n > 1 else None
    names, index = np.unique(np.asarray(groups)[known], return_inverse=True)
    if len(names) < 2:
        return Summary(mean, sd, n, None, None)
    # Sums about the mean: no digits are lost.
    totals = np.bincount(index, kept - mean)
    counts = np.bincount(index)
    drawn = _drawn(len(names), seed)
    means = mean + (drawn @ totals) / (drawn @ counts)
    low, high = np.percentile(means, _PERCENT)
    return Summary(mean, sd, n, float(low), float(high))


@functools.lru_cache(maxsize=8)
def _drawn(groups: int, seed: int) -> np.ndarray:
    """Returns how often each group is drawn in each resampling; not to be changed."""
    return np.random.default_rng(seed).multinomial(
        groups, np.full(groups, 1 / groups), size=_RESAMPLED
    )
