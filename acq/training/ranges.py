"""How the ranges of the activations' quantizers change while the student learns.

    observed       they follow a moving average of each batch's smallest and largest
                   value over the first steps and are then frozen, as GDFQ has it: the
                   run's first steps where generator and student have one loop
                   (`config.train.one_loop`), in which the student waits; else the
                   student's
    bn_statistics  they start as the teacher's BatchNorm parameters say
                   (`layers/observed.py`), before any sample

From there on they stay, or are trained if the quantizer's gradient is "learned".

A batch is quantized in the ranges from before it. Whether GDFQ's are from before or
after is not known here.
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
    """How ranges change.

    Attributes:
      observe_steps: they follow the samples for that many steps; 0 for none.
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
    """Returns the ranges after a step: moved towards the observed, or trained.

    Args:
      rule: how.
      before: {...: {low, high}} before the step; NaN before the first.
      trained: the same tree after the optimiser's step, which counts only once the
        ranges no longer follow the samples.
      observed: the same tree, of this batch over all devices; anything if the rule
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
