"""Bounds of the float network's features, for images that a generator makes.

A network whose blocks multiply features, as NAFNet's do, lets them grow without bound
on images unlike those of its training: a single generated image can reach 5,000 running
standard deviations (sd) of a BatchNorm's input, and then decides every mean and every
range. So the inputs of BatchNorm are cut off at

    mean +- bound * sd

On real CT, features of DnCNN, U-Net and NAFNet end at 9 to 15 sd, and at most 0.004 %
of them are beyond 10: that is the bound. The generator's may begin lower, so that a few
large features of its first images cannot drown all others. NAFNet needs 4; DnCNN's
student gets worse with it, for there 2 % of real features are beyond 4.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from common.intercepted import Meet

LAST_BOUND = 10.0


def growing_bound(
    step: Int[Array, ""], steps: int, first: float | int
) -> Float[Array, ""]:
    """Returns the generator's bound: from `first` to 10, by one factor each step.

    Args:
      step: from 0.
      steps: of the whole phase.
      first: the bound at step 0.
    """
    return first * (LAST_BOUND / first) ** (step / steps)


def cut_off(bound: float | Float[Array, ""] | None) -> Meet | None:
    """Returns what bounds the input of each BatchNorm; None without a bound.

    Args:
      bound: in running standard deviations.
    """
    if bound is None:
        return None

    def bounded(module: nn.Module, x: jax.Array) -> jax.Array:
        shape = (1,) * (x.ndim - 1) + (-1,)
        mean, var = (
            jnp.asarray(module.get_variable("batch_stats", name)).reshape(shape)
            for name in ("mean", "var")
        )
        reach = bound * jnp.sqrt(var + module.epsilon)
        return jnp.clip(x, mean - reach, mean + reach)

    return bounded
