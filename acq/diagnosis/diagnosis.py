"""Measures of a generator's samples, and a few example samples."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from acq.diagnosis import sample_measures
from acq.diagnosis.sample_measures import Variety

FEWEST_DRAWN = 16
"""Fewest samples of a class for a judgement of that class. If the teacher recognises
three in ten, it misses all of 16 once in 300 times."""


class Examples(NamedTuple):
    """A few samples for pictures, sorted by class, with pairs side by side.

    Attributes:
      label: the requested class.
      images: network inputs of the teacher.
      attention: in evaluation mode; each sums to 1.
      train_attention: in training mode, where the samples' batch normalises.
      cosine: of the attention in both modes.
      requested: centre (x, y) in [-1, 1]^2.
      achieved: centre of the attention.
      recognised: whether the teacher sees the requested class.
    """

    label: Int[np.ndarray, "n"]
    images: Float[np.ndarray, "n h w c"]
    attention: Float[np.ndarray, "n h2 w2"]
    train_attention: Float[np.ndarray, "n h2 w2"]
    cosine: Float[np.ndarray, "n"]
    requested: Float[np.ndarray, "n 2"]
    achieved: Float[np.ndarray, "n 2"]
    recognised: Bool[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """Measures of fresh samples; None for a measure that does not exist.

    Attributes:
      finite: share of the samples whose image and logits are finite numbers.
      requested: requested centres (x, y).
      achieved: centres of the teacher's attention, in evaluation mode.
      center_spread: standard deviation of a coordinate of the achieved centres within
        a class, a mean over classes; see `sample_measures.spread_in_class`.
      requested_spread: the same for the requested centres.
      attention_cosine: of attention in evaluation and in training mode.
      teacher_entropy: mean entropy of the teacher's softmax, in nats. CIFAR-10's test
        images have 0.07 to 0.08; samples far below are easier than images.
      statistics: BNS, a mean over batches, by 'eval_squared', 'eval_relative',
        'train_squared' and 'train_relative': the mode, and `losses.StatisticsForm`.
      drawn: samples by class.
      recognised: samples by class in which the teacher sees that class.
      variety: distances between samples.
      examples: a few samples.
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
    examples: Examples

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.requested)

    @property
    def recognised_share(self) -> float:
        """Share of all samples that the teacher recognises."""
        return float(np.sum(self.recognised) / np.sum(self.drawn))

    @property
    def judged(self) -> Int[np.ndarray, "j"]:
        """Classes with enough samples for a judgement of each."""
        return np.flatnonzero(self.drawn >= FEWEST_DRAWN)

    def center_r2(self, coordinates: slice = slice(None)) -> float | None:
        """Returns R^2 of the centres; slice(0, 1) is for x, slice(1, 2) for y."""
        return sample_measures.r_squared(
            self.achieved[:, coordinates], self.requested[:, coordinates]
        )

    def center_slope(self) -> float | None:
        """Returns the slope of the centres, see `sample_measures.slope`."""
        return sample_measures.slope(self.achieved, self.requested)

    def scalars(self) -> dict[str, float]:
        """Returns the existing metrics by name."""
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
    """Returns the mean of the values that are not NaN; None if there are none."""
    numbers = values[~np.isnan(values)]
    return float(np.mean(numbers)) if len(numbers) else None
