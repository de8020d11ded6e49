"""Measures of a set of samples: accuracy of centres, and variety.

They use NumPy in float64. Samples 2 i and 2 i + 1 are a pair, which shares class and
centre. Measures within a class leave out comparisons within a pair, because these are
not independent draws. A measure that does not exist is None.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Variety(NamedTuple):
    """Distances between samples, in units of the distance of Gaussian noise.

    Attributes:
      overall: of two samples that are not a pair.
      in_class: of two samples of a class that are not a pair; NaN for a class that was
        not drawn twice.
      in_pair: of the two samples of a pair, which differ only in the latent.
    """

    overall: float | None
    in_class: Float[np.ndarray, "k"]
    in_pair: float | None


def r_squared(
    achieved: Float[np.ndarray, "n d"], requested: Float[np.ndarray, "n d"]
) -> float | None:
    """Returns R^2 of the achieved values, over all coordinates together.

        1 - sum |achieved - requested|^2 / sum |requested - mean(requested)|^2

    1 is exact, 0 is no better than always the mean of the requests, and there is no
    lower limit. None if all requests are equal.
    """
    total = np.sum(np.square(requested - np.mean(requested, axis=0)), dtype=float)
    missed = np.sum(np.square(achieved - requested), dtype=float)
    return float(1 - missed / total) if total > 0 else None


def slope(
    achieved: Float[np.ndarray, "n d"], requested: Float[np.ndarray, "n d"]
) -> float | None:
    """Returns the least squares slope of achieved over requested values.

    It separates centres that follow but fall short (below 1, above 0) from centres that
    do not follow (0). R^2 is low in both cases. None if all requests are equal.
    """
    centred = requested - np.mean(requested, axis=0)
    total = np.sum(np.square(centred), dtype=float)
    return float(np.sum(centred * achieved, dtype=float) / total) if total > 0 else None


def spread_in_class(
    values: Float[np.ndarray, "n d"], label: Int[np.ndarray, "n"]
) -> float | None:
    """Returns the standard deviation within a class, a mean over classes.

    For each class it is the root of the mean of (v_i - v_j)^2 / 2 over coordinates and
    over samples i, j of different pairs, which is the unbiased variance. None if no
    class was drawn twice.

    Args:
      values: of the samples; rows 2 i and 2 i + 1 are a pair.
      label: of the samples.
    """
    pair, found = np.arange(len(label)) // 2, []
    for k in np.unique(label):
        chosen = label == k
        others = pair[chosen][:, None] != pair[chosen]
        if np.any(others):
            apart = values[chosen][:, None] - values[chosen]
            found.append(np.sqrt(np.mean(np.square(apart)[others], dtype=float) / 2))
    return float(np.mean(found)) if found else None


def variety(
    squared: Float[np.ndarray, "m b b"], label: Int[np.ndarray, "m b"], classes: int
) -> Variety:
    """Returns distances between samples.

    They are roots of mean squared differences, divided by sqrt(2), the value for two
    images of independent standard normal pixels. Samples have about mean 0 and variance
    1 too, like normalised images: exactly with tanh, otherwise as far as BNS achieves.

    Args:
      squared: mean over pixels of the squared difference of two samples of one batch.
      label: of the samples, by batch; samples 2 i and 2 i + 1 of a batch are a pair.
      classes: number of labels.
    """
    pair = np.arange(label.shape[1]) // 2
    same_pair = np.broadcast_to(pair[:, None] == pair, squared.shape)
    oneself = np.broadcast_to(np.eye(len(pair), dtype=bool), squared.shape)
    alike = (label[:, :, None] == label[:, None, :]) & ~same_pair
    kinds = np.broadcast_to(label[:, :, None], squared.shape)[alike]
    total = np.bincount(kinds, squared[alike], minlength=classes)
    count = np.bincount(kinds, minlength=classes)
    in_class = np.full(classes, np.nan)
    np.divide(total, count, out=in_class, where=count > 0)
    return Variety(
        _relative(squared[~same_pair]),
        np.sqrt(in_class / 2),
        _relative(squared[same_pair & ~oneself]),
    )


def _relative(squared: Float[np.ndarray, "n"]) -> float | None:
    return float(np.sqrt(np.mean(squared, dtype=float) / 2)) if len(squared) else None
