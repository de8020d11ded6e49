"""Images of a trained generator, as a student or a network of integers takes them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from acq.classifier import Classifier
from acq.quantization.parts import generator_parts
from acq.quantization.settings import QuantizationSettings
from common.typing import PyTree


def make_sample_images(
    settings: QuantizationSettings, teacher: Classifier, generator_params: PyTree
) -> Callable[[int], jax.Array]:
    """Returns `generate(batch) -> images`: normalised, (n, h, w, c).

    The same number of a batch gives the same images. A batch has
    `settings.train.batch_size` of them.

    Args:
      settings: the settings of the quantization.
      teacher: the classifier that the generator learned from.
      generator_params: the generator's parameters.
    """
    parts, size = (
        generator_parts(settings, teacher, alone=False),
        settings.train.batch_size,
    )

    @jax.jit
    def images(params: PyTree, draw: jax.Array) -> jax.Array:
        conditions = parts.sampling.draw(draw)
        made = parts.generator.clone(axis_name=None).apply(
            {"params": params}, conditions
        )
        return jnp.asarray(made)

    def generate(batch: int) -> jax.Array:
        draw = jnp.arange(batch * size, (batch + 1) * size, dtype="uint32")
        return images(generator_params, draw)

    return generate
