"""Measures of a set of samples: are centres reached, do the samples differ.

NumPy, in float64. Samples 2 i and 2 i + 1 are a pair, which shares class and centre:
whatever is said of the samples of one class leaves comparisons within a pair out, since
those are no independent draws. None stands for what cannot be measured.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Variety(NamedTuple):
    """Distances between samples, in units of the distance of Gaussian noise.

    Attributes:
      overall: any two samples, but those of a pair.
      in_class: two samples of a class, but those of a pair; NaN for a class that
        was not drawn twice.
      in_pair: the two of a pair, which differ in the latent alone.
    """

    overall: float | None
    in_class: Float[np.ndarray, "k"]
    in_pair: float | None


def r_squared(
    achieved: Float[np.ndarray, "n d"], requested: Float[np.ndarray, "n d"]
) -> float | None:
    """Share of the requests' variance that is met, over all coordinates together.

        1 - sum |achieved - requested|^2 / sum |requested - mean(requested)|^2

    1 is exactly as requested, 0 no better than always the requests' mean; it has no
    lower end. None where all requests are the same.
    """
    total = np.sum(np.square(requested - np.mean(requested, axis=0)), dtype=float)
    missed = np.sum(np.square(achieved - requested), dtype=float)
    return float(1 - missed / total) if total > 0 else None


def slope(
    achieved: Float[np.ndarray, "n d"], requested: Float[np.ndarray, "n d"]
) -> float | None:
    """By how much the achieved moves for each 1 requested, by least squares.

    Tells centres that follow but fall short (below 1, above 0) from those that do not
    follow (0), where R^2 is low in both cases. None where all requests are the same.
    """
    apart = requested - np.mean(requested, axis=0)
    total = np.sum(np.square(apart), dtype=float)
    return float(np.sum(apart * achieved, dtype=float) / total) if total > 0 else None


def spread_in_class(
    values: Float[np.ndarray, "n d"], label: Int[np.ndarray, "n"]
) -> float | None:
    """Standard deviation of a coordinate within a class, a mean over classes.

    Of each class the root of the mean over coordinates and over two samples of
    different pairs of (v_i - v_j)^2 / 2, which is the variance without bias. None if no
    class was drawn twice.

    Args:
      values: in the samples' order, so that rows 2 i and 2 i + 1 are a pair.
      label: of the samples.
    """
    pair, found = np.arange(len(label)) // 2, []
    for kind in np.unique(label):
        chosen = label == kind
        others = pair[chosen][:, None] != pair[chosen]
        if np.any(others):
            apart = values[chosen][:, None] - values[chosen]
            found.append(np.sqrt(np.mean(np.square(apart)[others], dtype=float) / 2))
    return float(np.mean(found)) if found else None


def variety(
    squared: Float[np.ndarray, "m b b"], label: Int[np.ndarray, "m b"], classes: int
) -> Variety:
    """Returns how different samples are.

    Distances are roots of mean squared ones, divided by sqrt(2): that of two images of
    independent standard normal pixels. Samples are near mean 0 and variance 1 as well,
    as normalised images are: those of tanh exactly, others as far as BNS makes them.

    Args:
      squared: mean over pixels of the squared difference of two samples of one batch.
      label: of the samples, by batch; samples 2 i and 2 i + 1 of one are a pair.
      classes: labels there are.
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
