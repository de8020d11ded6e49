"""How far the features of one set of images lie from those of another: FID and KID.

For features x (n, d) and y (m, d) with means mu and covariances S (n - 1):

    FID = |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))
    KID = mean k(x, x') + mean k(y, y') - 2 mean k(x, y),   k(x, y) = (x y / d + 1)^3

(Heusel et al., NeurIPS 2017, eq. 6; Binkowski et al., ICLR 2018: means over pairs of
different images, so KID has no bias and may be negative.) All of it is float64 NumPy.

FID of few images is too large, the more so the fewer: with fewer images than features
the covariances have no full rank. A number of one paper cannot be compared with that of
another. `distribution_distances` therefore gives a floor beside each: the distance
between the truth of two halves of the patients, and that of the outputs of one half
from the truth of the other. Both have the same number of images and so the same bias:
an output as good as the truth reaches the floor.

KID has an interval, from a jackknife over patients (Efron and Tibshirani 1993, chapter
11). FID has none: every way of resampling adds to its bias.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

# Rows of a kernel matrix that are in memory at a time.
_ROWS = 512


class KernelDistance(NamedTuple):
    """KID with its interval.

    Attributes:
      value: 0 for equal distributions; not multiplied by 1000.
      low: lower end of the 95 % interval; None below three groups.
      high: upper end.
    """

    value: float
    low: float | None
    high: float | None


class DistributionDistances(NamedTuple):
    """Distances of outputs from the truth, with the floor of a perfect output.

    Attributes:
      images: of each set.
      half: images of each half, on average.
      features: of each image.
      fid: of all outputs from all truth, the number of papers.
      fid_held_out: of the outputs of one half of the groups from the truth of the
        other; mean of both ways.
      fid_floor: of the truth of one half from that of the other.
      kid: like `fid`.
      kid_held_out: like `fid_held_out`.
      kid_floor: like `fid_floor`.
      warnings: in words; () without any.
    """

    images: int
    half: float
    features: int
    fid: float
    fid_held_out: float
    fid_floor: float
    kid: KernelDistance
    kid_held_out: float
    kid_floor: KernelDistance
    warnings: tuple[str, ...]


def frechet_distance(
    features: Float[np.ndarray, "n d"], reference: Float[np.ndarray, "m _"]
) -> float:
    """Returns the squared Frechet distance of the Gaussians of both sets: FID.

    The trace of the root of S_x S_y is the sum of singular values of X Y^T, where X is
    the centred features over sqrt(n - 1). This needs no root of a matrix, and holds for
    fewer images than features too.

    Raises:
      ValueError: The sets do not fit, have fewer than two images, or are not finite.
    """
    x, y = _checked(features, reference)
    difference = x.mean(0) - y.mean(0)
    roots = [(a - a.mean(0)) / math.sqrt(len(a) - 1) for a in (x, y)]
    traces = [float(np.sum(a * a)) for a in roots]
    small = [np.asarray(np.linalg.qr(a, mode="r")) for a in roots]
    product = np.linalg.svd(small[0] @ small[1].T, compute_uv=False)
    return float(difference @ difference + sum(traces) - 2 * product.sum())


def kernel_distance(
    features: Float[np.ndarray, "n d"],
    reference: Float[np.ndarray, "m _"],
    groups: Sequence[str] | None = None,
    reference_groups: Sequence[str] | None = None,
) -> KernelDistance:
    """Returns the squared maximum mean discrepancy of the cubic kernel: KID.

    It uses all pairs. Clean-fid's mean over 100 random subsets of up to 1,000 images
    has the same expectation. Outputs and truth of the same slices resemble each other,
    which makes the value smaller than that of different slices.

    Args:
      features: of n images.
      reference: of m images.
      groups: of the images, which the interval leaves out one at a time: patients. None
        for each image its own.
      reference_groups: of the reference's images. A group with the same name is left
        out of both sets at once. None for each image its own, not one of `groups`.

    Raises:
      ValueError: See `frechet_distance`; or the groups are not one for each image.
    """
    x, y = _checked(features, reference)
    of_x = [f"x{i}" for i in range(len(x))] if groups is None else list(groups)
    of_y = [f"y{i}" for i in range(len(y))]
    of_y = of_y if reference_groups is None else list(reference_groups)
    if len(of_x) != len(x) or len(of_y) != len(y):
        raise ValueError(
            f"groups: got {len(of_x)} and {len(of_y)} for {len(x)} and {len(y)} images"
        )
    names = sorted({*of_x, *of_y})
    index_x, index_y = (np.searchsorted(names, of) for of in (of_x, of_y))
    count = [np.bincount(i, minlength=len(names)) for i in (index_x, index_y)]
    sums = [
        _group_sums(x, x, index_x, index_x, len(names), same=True),
        _group_sums(y, y, index_y, index_y, len(names), same=True),
        _group_sums(x, y, index_x, index_y, len(names)),
    ]
    n, m = len(x), len(y)
    value = float(_discrepancy([s.sum() for s in sums], n, m))
    # What is left without each group: the whole less its row and its column.
    left = [s.sum() - s.sum(0) - s.sum(1) + np.diag(s) for s in sums]
    left_x, left_y = n - count[0], m - count[1]
    if min(left_x.min(), left_y.min()) < 2:
        return KernelDistance(value, None, None)
    without = _discrepancy(left, left_x, left_y)
    return KernelDistance(value, *_jackknife(value, without, count))


def distribution_distances(
    features: Float[np.ndarray, "n d"],
    truth_features: Float[np.ndarray, "n d"],
    groups: Sequence[str],
    *,
    seed: int = 0,
) -> DistributionDistances:
    """Returns FID and KID of outputs from the truth, with their floors.

    Args:
      features: of the outputs of n slices.
      truth_features: of the truth of the same slices, in the same order.
      groups: of each slice, from `intervals.resampled_groups`. Slices of a single
        patient are groups of their own: neighbours in both halves lower the floor.
      seed: of the halves.

    Raises:
      ValueError: See `kernel_distance`; or there are fewer than two groups, or a half
        has fewer than two slices.
    """
    x, y = _checked(features, truth_features)
    if len(x) != len(y) or len(groups) != len(x):
        raise ValueError(
            f"got {len(x)} outputs, {len(y)} truths, {len(groups)} groups; one for "
            "each slice"
        )
    group = np.asarray(groups)
    first = _half(group, seed)
    if min(first.sum(), (~first).sum()) < 2:
        raise ValueError(
            f"a floor needs two groups with two slices each, got {len(x)} slices of "
            f"{len(set(groups))} groups"
        )
    halves = ((first, ~first), (~first, first))
    return DistributionDistances(
        images=len(x),
        half=len(x) / 2,
        features=x.shape[1],
        fid=frechet_distance(x, y),
        fid_held_out=float(np.mean([frechet_distance(x[a], y[b]) for a, b in halves])),
        fid_floor=frechet_distance(y[first], y[~first]),
        kid=kernel_distance(x, y, groups, groups),
        kid_held_out=float(
            np.mean([kernel_distance(x[a], y[b]).value for a, b in halves])
        ),
        kid_floor=kernel_distance(
            y[first], y[~first], list(group[first]), list(group[~first])
        ),
        warnings=_warnings(len(x), x.shape[1], len(set(groups))),
    )


def _warnings(images: int, features: int, groups: int) -> tuple[str, ...]:
    found = []
    if images <= features:
        found.append(
            f"{images} images for {features} features: FID's covariances have no full "
            "rank, and FID is far too large. Compare it with its floor alone; KID has "
            "no such bias."
        )
    if groups < 10:
        found.append(
            f"{groups} groups: an interval from so few is rough, and too narrow."
        )
    return tuple(found)


def _checked(*sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(a, np.float64) for a in sets)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features: got shapes {x.shape} and {y.shape}, accepted: (images, "
            "features) with the same features"
        )
    if min(len(x), len(y)) < 2:
        raise ValueError(f"got {len(x)} and {len(y)} images, at least 2 are needed")
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise ValueError("features are not finite")
    return x, y


def _group_sums(
    x: np.ndarray,
    y: np.ndarray,
    of_x: np.ndarray,
    of_y: np.ndarray,
    groups: int,
    *,
    same: bool = False,
) -> np.ndarray:
    """Returns (groups, groups) sums of the kernel over pairs of images.

    With `same`, x and y are one set, and no image is paired with itself.
    """
    order_x, order_y = np.argsort(of_x, kind="stable"), np.argsort(of_y, kind="stable")
    names, starts = np.unique(of_y[order_y], return_index=True)
    sums = np.zeros((groups, groups))
    for start in range(0, len(x), _ROWS):
        rows = order_x[start : start + _ROWS]
        kernel = (x[rows] @ y[order_y].T / x.shape[1] + 1) ** 3
        if same:
            inner = np.arange(len(rows))
            kernel[inner, start + inner] = 0
        of_rows, first = np.unique(of_x[rows], return_index=True)
        block = np.add.reduceat(np.add.reduceat(kernel, starts, axis=1), first, axis=0)
        sums[np.ix_(of_rows, names)] += block
    return sums


def _discrepancy(sums: Sequence[Any], n: Any, m: Any) -> Any:
    """Returns KID from sums over pairs of n and m images; numbers or arrays."""
    xx, yy, xy = sums
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


def _jackknife(
    value: float, without: np.ndarray, counts: Sequence[np.ndarray]
) -> tuple[float | None, float | None]:
    """Returns the 95 % interval; groups of one set, of the other and of both apart."""
    variance, freedom = 0.0, 0
    kinds = (counts[0] > 0) + 2 * (counts[1] > 0)
    for kind in np.unique(kinds):
        values = without[kinds == kind]
        if (size := len(values)) < 3:
            return None, None
        variance += (size - 1) / size * float(np.sum((values - values.mean()) ** 2))
        freedom += size - 1
    reach = float(special.stdtrit(freedom, 0.975)) * math.sqrt(variance)
    return value - reach, value + reach


def _half(groups: np.ndarray, seed: int) -> np.ndarray:
    """Returns (n,) bool: groups in a random order, until half of the images are in."""
    names, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    # The first group is always in, the last one never.
    inside = before + counts[order] / 2 < len(groups) / 2
    inside[0], inside[-1] = True, False
    return np.isin(groups, names[order[inside]])
