"""Tests whether a classifier is better than guessing, and under which labels."""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from acq.accuracy import NOT_FINITE, Accuracy

_ERRORS = 4
"""Standard errors between accuracies that count as different: chance is 1 in 30,000."""
_LEAST_OF_CLASS = 10
"""Images per class, on average, that show the network's name of a class."""


class Renamed(NamedTuple):
    """Other names of the classes, and their accuracy.

    Attributes:
      correct: Images that would be right.
      names: {label: class that the network gives}, for labels that differ from it.
    """

    correct: int
    names: dict[int, int]


def compare_with_chance(
    accuracy: Accuracy, classes: int
) -> Literal["above", "at_chance", "too_few"]:
    """Returns whether a classifier is better than guessing one of its classes.

    'above': by more than 4 standard errors of guessing, sqrt(p (1 - p) / n) with
    p = 1 / classes. Otherwise 'at_chance' if there are at least `fewest_judged` images,
    else 'too_few'.
    """
    n, chance = accuracy.n, 1 / classes
    most = n * chance + _ERRORS * math.sqrt(n * chance * (1 - chance))
    if accuracy.correct > most:
        return "above"
    return "at_chance" if n >= fewest_judged(classes) else "too_few"


def fewest_judged(classes: int) -> int:
    """Returns how many images distinguish guessing from a half-right classifier.

    Half right is midway between guessing and always right: p = (1 + 1 / classes) / 2.
    4 of its standard errors and 4 of guessing fit between the two: 51 images of 10
    classes, 223 of two, 19 of 1,000.
    """
    chance = 1 / classes
    half = (1 + chance) / 2
    errors = math.sqrt(chance * (1 - chance)) + math.sqrt(half * (1 - half))
    return math.ceil((_ERRORS * errors / (half - chance)) ** 2)


def renamed_classes(
    given: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"]
) -> Renamed | None:
    """Returns other names of classes under which a classifier is right, or None.

    The name of a label is the class that its images get most often, if this class goes
    to this label most often. Names are returned only if more than half of the images
    are right with them, at least twice as many as without them, and if there are 10
    images per class.

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
