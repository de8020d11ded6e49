"""Makes the variables of a network before its training."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.classifier import Record
from common.typing import PyTree


def untrained_variables(network: nn.Module, record: Record, seed: int) -> PyTree:
    """Returns initial `params` and `batch_stats` on the host.

    Args:
      network: Of the record, made with `FloatLayers`.
      record: Gives the image size.
      seed: Of the kernels.
    """
    x = jax.ShapeDtypeStruct(record.image_shape(1), jnp.float32)
    # Not the default random generator: on CPU, XLA takes two seconds to compile it for
    # each shape of normal numbers, and a network has dozens.
    rng = jax.random.key(seed, impl="rbg")
    return jax.device_get(jax.jit(lambda rng: network.lazy_init(rng, x))(rng))
