"""Intervals of top-1 and of differences of top-1, in percent and points.

All have a level of 95 %. They describe the choice of the images alone: another seed of
the quantization moves top-1 too.
"""

import math
from typing import NamedTuple

from scipy.stats import binomtest

_Z = 1.959963984540054
"""The normal distribution has 95 % of its weight within this many deviations."""


class Difference(NamedTuple):
    """Top-1 of a first network minus that of a second one on the same images.

    Attributes:
      points: the difference.
      low: lower end of the interval.
      high: its upper end.
      n: the images.
      p: of McNemar's exact test; None if pairs were not counted, and then the interval
        is that of two independent sets of images.
    """

    points: float
    low: float
    high: float
    n: int
    p: float | None

    @property
    def shows(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Returns Wilson's interval of a share, in percent.

    Wilson, JASA 22, 1927. It is within 0 and 100 and has a width for shares of 0 and 1.

    Args:
      correct: images that are right, 0 to n.
      n: all images, at least 1.

    Raises:
      ValueError: the counts are no such numbers.
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"got {correct} of {n}, accepted: 0 to n of at least 1")
    share, square = correct / n, _Z**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    half /= 1 + square / n
    # Exact at the ends, where rounding would leave 1e-15.
    low = 0.0 if correct == 0 else 100 * (middle - half)
    high = 100.0 if correct == n else 100 * (middle + half)
    return low, high


def paired_difference(only_first: int, only_second: int, n: int) -> Difference:
    """Returns the difference of two networks, by the images that only one has right.

    The interval is Agresti and Min's, Statistics in Medicine 24, 2005: Wald's, after
    half an image is added to each of the four counts. p is of McNemar's test, exact.

    Args:
      only_first: images that only the first network has right.
      only_second: images that only the second one has right.
      n: all images.

    Raises:
      ValueError: the counts are negative, or more than n.
    """
    if min(only_first, only_second) < 0 or not 1 <= n >= only_first + only_second:
        raise ValueError(
            f"got {only_first} and {only_second} of {n} images, accepted: counts from "
            "0, together at most n"
        )
    apart, either = only_first - only_second, only_first + only_second
    middle = apart / (n + 2)
    half = _Z * math.sqrt(either + 1 - apart**2 / (n + 2)) / (n + 2)
    return Difference(
        points=100 * apart / n,
        low=100 * max(middle - half, -1),
        high=100 * min(middle + half, 1),
        n=n,
        p=float(binomtest(only_first, either).pvalue) if either else 1.0,
    )


def unpaired_difference(first: int, second: int, n: int) -> Difference:
    """Returns the difference of two networks as if each had images of its own.

    The interval is Newcombe's, of Wilson's intervals (Statistics in Medicine 17, 1998).
    On the same images, two similar networks differ by less than it says.

    Args:
      first: images that the first network has right.
      second: images that the second one has right.
      n: all images.

    Raises:
      ValueError: the counts are negative, or more than n.
    """
    (low_1, high_1), (low_2, high_2) = wilson(first, n), wilson(second, n)
    share_1, share_2 = 100 * first / n, 100 * second / n
    points = 100 * (first - second) / n
    return Difference(
        points=points,
        low=points - math.hypot(share_1 - low_1, high_2 - share_2),
        high=points + math.hypot(high_1 - share_1, share_2 - low_2),
        n=n,
        p=None,
    )
