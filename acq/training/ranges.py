"""Updates the ranges of activation quantizers while the student learns.

    observed       as in GDFQ, they follow a moving average of each batch's smallest and
                   largest value over the first steps, and then freeze. If generator and
                   student have one loop (`config.train.one_loop`), these are the first
                   steps of the run, in which the student waits; else the student's
    bn_statistics  they are computed from the teacher's BatchNorm parameters
                   (`layers/observed.py`), before any sample

After that they stay, or are trained if the quantizer's gradient is "learned".

A batch is quantized with the ranges from before it. It is not known here which ranges
GDFQ uses.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from acq.layers.quantized import average_ranges
from common.typing import PyTree

RangeSource = Literal["observed", "bn_statistics"]
RANGE_SOURCES: tuple[RangeSource, ...] = ("observed", "bn_statistics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RangeRule:
    """When and how fast ranges follow the samples.

    Attributes:
      observe_steps: how many steps they follow the samples; 0 for none.
      decay: of the moving average.
    """

    observe_steps: int = 0
    decay: float | int = 0.9


def followed_ranges(
    rule: RangeRule,
    before: PyTree,
    trained: PyTree,
    observed: PyTree,
    step: jax.Array,
) -> PyTree:
    """Returns the ranges after a step: moved towards the observed ones, or trained.

    Args:
      rule: of the run.
      before: {...: {low, high}} before the step; NaN before the first step.
      trained: the same tree after the optimiser's step; used once the ranges no longer
        follow the samples.
      observed: the same tree, of this batch over all devices; any value if the rule
        observes no step.
      step: steps done before this one, int32 scalar.
    """
    if not rule.observe_steps:
        return trained
    return jax.tree.map(
        lambda moved, kept: jnp.where(step < rule.observe_steps, moved, kept),
        average_ranges(before, observed, float(rule.decay)),
        trained,
    )
