"""Whether a classifier does better than guessing, and under which labels."""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from acq.accuracy import NOT_FINITE, Accuracy

_ERRORS = 4
"""Standard errors between what is told apart: once in 30,000 it is chance."""
_LEAST_OF_CLASS = 10
"""Images of a class, on the mean, that tell which class the network calls it."""


class Renamed(NamedTuple):
    """What labels another name for every class would give.

    Attributes:
      correct: Images that would be right.
      names: {label: class that the network gives}, of those that differ.
    """

    correct: int
    names: dict[int, int]


def compare_with_chance(
    accuracy: Accuracy, classes: int
) -> Literal["above", "at_chance", "too_few"]:
    """Returns whether a classifier is better than guessing one of its classes.

    `above` by more than 4 standard errors of guessing, sqrt(p (1 - p) / n) with
    p = 1 / classes. `at_chance`, if there are `fewest_judged` images or more.
    """
    n, chance = accuracy.n, 1 / classes
    most = n * chance + _ERRORS * math.sqrt(n * chance * (1 - chance))
    if accuracy.correct > most:
        return "above"
    return "at_chance" if n >= fewest_judged(classes) else "too_few"


def fewest_judged(classes: int) -> int:
    """Returns how many images tell guessing from a classifier that is half right.

    Half right is half of the way from guessing to always right: p = (1 + 1 / classes)
    / 2. 4 of its standard errors and 4 of guessing fit between the two: 51 images of
    10 classes, 223 of two, 19 of 1,000.
    """
    chance = 1 / classes
    half = (1 + chance) / 2
    errors = math.sqrt(chance * (1 - chance)) + math.sqrt(half * (1 - half))
    return math.ceil((_ERRORS * errors / (half - chance)) ** 2)


def renamed_classes(
    given: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"]
) -> Renamed | None:
    """Returns the names of classes under which a classifier is right; None if its own.

    A label's is the class that it is given most often, if that class is given to this
    label most often. They count where more than half of the images are right by them,
    at least twice as many as by its own, and where there are 10 images a class.

    Args:
      given: The classifier's class of each image.
      labels: Of the images.
    """
    count = int(max(given.max(), labels.max())) + 1
    finite = given != NOT_FINITE
    seen = np.zeros((count, count), np.int64)
    np.add.at(seen, (labels[finite], given[finite]), 1)
    every = np.arange(count)
    names = seen.argmax(1)
    mutual = (seen.argmax(0)[names] == every) & (seen[every, names] > 0)
    correct = int(seen[every, names][mutual].sum())
    enough = len(labels) >= _LEAST_OF_CLASS * len(np.unique(labels))
    if not enough or 2 * correct <= len(labels) or correct < 2 * np.trace(seen):
        return None
    moved = np.flatnonzero(mutual & (names != every))
    return Renamed(correct, {int(k): int(names[k]) for k in moved})
