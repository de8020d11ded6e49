"""The variables that a network starts training with."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.classifier import Record
from common.typing import PyTree


def untrained_variables(network: nn.Module, record: Record, seed: int) -> PyTree:
    """Returns fresh `params` and `batch_stats` on the host, compiled in seconds.

    Args:
      network: Of the record, built of `FloatLayers`.
      record: Tells the images' size.
      seed: Of the kernels.
    """
    x = jax.ShapeDtypeStruct(record.image_shape(1), jnp.float32)
    # Not the default generator: on CPU, XLA takes two seconds to compile each of its
    # normal numbers' shapes, and a network has dozens.
    rng = jax.random.key(seed, impl="rbg")
    return jax.device_get(jax.jit(lambda rng: network.lazy_init(rng, x))(rng))
