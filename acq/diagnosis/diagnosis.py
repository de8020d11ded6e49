"""What was measured of a generator's samples, and a few of them to look at."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from acq.diagnosis import sample_measures
from acq.diagnosis.sample_measures import Variety

FEWEST_DRAWN = 16
"""Samples of a class from which on it is judged alone: where the teacher recognises
three in ten, it misses all of 16 once in 300 times."""


class Shown(NamedTuple):
    """A few samples to look at, classes together, pairs side by side.

    Attributes:
      label: the class asked for.
      images: as the teacher takes them.
      attention: in evaluation mode; each sums to 1.
      requested: centre (x, y) in [-1, 1]^2.
      achieved: centre of the attention.
      recognised: whether the teacher sees the class asked for.
    """

    label: Int[np.ndarray, "n"]
    images: Float[np.ndarray, "n h w c"]
    attention: Float[np.ndarray, "n h2 w2"]
    requested: Float[np.ndarray, "n 2"]
    achieved: Float[np.ndarray, "n 2"]
    recognised: Bool[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """Measures of fresh samples. None: could not be measured.

    Attributes:
      finite: share of the samples whose image and logits are finite numbers.
      requested: centres (x, y) asked for.
      achieved: centres of the teacher's attention, in evaluation mode.
      center_spread: standard deviation of a coordinate of the achieved centres within
        a class, a mean over classes; see `sample_measures.spread_in_class`.
      requested_spread: the same of the centres asked for.
      attention_cosine: of attention in evaluation and in training mode.
      teacher_entropy: mean entropy of the teacher's softmax, in nats; 0.07 to 0.08 of
        CIFAR-10's test images, so that samples far below are plainer than images are.
      statistics: BNS, a mean over batches, by 'eval_squared', 'eval_relative',
        'train_squared' and 'train_relative': the mode, and `losses.StatisticsForm`.
      drawn: samples by class.
      recognised: those of them in which the teacher sees that class.
      variety: distances between samples.
      shown: a few samples.
    """

    finite: float
    requested: Float[np.ndarray, "n 2"]
    achieved: Float[np.ndarray, "n 2"]
    center_spread: float | None
    requested_spread: float | None
    attention_cosine: float | None
    teacher_entropy: float
    statistics: dict[str, float]
    drawn: Int[np.ndarray, "k"]
    recognised: Int[np.ndarray, "k"]
    variety: Variety
    shown: Shown

    @property
    def count(self) -> int:
        """Samples."""
        return len(self.requested)

    @property
    def recognised_share(self) -> float:
        """Of all samples."""
        return float(np.sum(self.recognised) / np.sum(self.drawn))

    @property
    def judged(self) -> Int[np.ndarray, "j"]:
        """Classes with enough samples to be judged alone."""
        return np.flatnonzero(self.drawn >= FEWEST_DRAWN)

    def center_r2(self, coordinates: slice = slice(None)) -> float | None:
        """R^2 of achieved against requested centres; slice(0, 1) is x, (1, 2) y."""
        return sample_measures.r_squared(
            self.achieved[:, coordinates], self.requested[:, coordinates]
        )

    def center_slope(self) -> float | None:
        """See `sample_measures.slope`."""
        return sample_measures.slope(self.achieved, self.requested)

    def scalars(self) -> dict[str, float]:
        """Metrics by name; what could not be measured is left out."""
        judged = self.judged
        worst = self.recognised[judged] / self.drawn[judged]
        measured = {
            "finite": self.finite,
            "center_r2": self.center_r2(),
            "center_r2_x": self.center_r2(slice(0, 1)),
            "center_r2_y": self.center_r2(slice(1, 2)),
            "center_slope": self.center_slope(),
            "center_spread_in_class": self.center_spread,
            "requested_spread_in_class": self.requested_spread,
            "attention_cosine": self.attention_cosine,
            "teacher_entropy": self.teacher_entropy,
            **{f"bns_{name}": value for name, value in self.statistics.items()},
            "recognised": self.recognised_share,
            "recognised_worst_class": np.min(worst) if len(judged) else None,
            "variety": self.variety.overall,
            "variety_in_class": _mean(self.variety.in_class),
            "variety_in_pair": self.variety.in_pair,
        }
        return {
            f"samples/{name}": float(value)
            for name, value in measured.items()
            if value is not None and np.isfinite(value)
        }


def _mean(values: Float[np.ndarray, "k"]) -> float | None:
    """Of those that are numbers; None if none is."""
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if len(known) else None
