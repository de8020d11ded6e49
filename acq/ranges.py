"""Where the ranges of the activations' quantizers come from.

    observed       a moving average of each batch's smallest and largest value over the
                   first steps, then frozen: GDFQ's, with a plain average, since its
                   bias-corrected one feeds back and grows without bound
    bn_statistics  from the teacher's BatchNorm parameters alone, before any sample
    learned        either of these to begin with, then trained with the weights

Ranges are a tree {...: {low, high}} of float32 scalars, a pair for each quantizer.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from common.devices import AXIS
from common.typing import PyTree

RangeSource = Literal["observed", "bn_statistics"]
RANGE_SOURCES: tuple[RangeSource, ...] = ("observed", "bn_statistics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RangeRule:
    """How ranges change while the student learns.

    Attributes:
      observe_steps: ranges follow the samples for that many steps, then are frozen.
        0: they start as given and stay, or are trained.
      decay: of the moving average.
    """

    observe_steps: int = 0
    decay: float | int = 0.9


def updated_ranges(
    rule: RangeRule, ranges: PyTree, moving: PyTree, observed: PyTree, step: jax.Array
) -> tuple[PyTree, PyTree]:
    """Returns (ranges, moving average) after a step, the same on every device.

    The average starts as the first batch's range, and is

        average <- decay * average + (1 - decay) * observed

    Args:
      rule: how.
      ranges: what the student used, after its optimiser's step.
      moving: the average; read from the second step on.
      observed: smallest and largest values of this batch, over all devices.
      step: steps done before this one.
    """
    if not rule.observe_steps:
        return ranges, moving
    moving = jax.tree.map(
        lambda old, new: jnp.where(
            step == 0, new, rule.decay * old + (1 - rule.decay) * new
        ),
        moving,
        observed,
    )
    follows = step < rule.observe_steps
    ranges = jax.tree.map(
        lambda old, new: jnp.where(follows, new, old), ranges, moving
    )
    return ranges, moving
