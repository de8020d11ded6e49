"""Checks that attention can be computed from a teacher's features."""

from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from acq.classifier import Classifier
from acq.training.step_parts import GeneratorLoss
from common.errors import UserError

_TERMS = ("center_weight", "consistency_weight")


def check_features(teacher: Classifier, loss: GeneratorLoss) -> None:
    """Refuses features of one position if attention is used; otherwise warns.

    Attention is a distribution over positions. Over one position it is constant.

    Args:
      teacher: Whose features are checked.
      loss: The generator's.

    Raises:
      UserError: A term of the generator's loss needs attention over several positions.
    """
    shape = _features_shape(teacher)
    if shape[1] * shape[2] > 1:
        return
    found = (
        f"{teacher.record.name}: its features are {shape[1]} x {shape[2]} for images "
        f"of {teacher.record.image_size} x {teacher.record.image_size}, but attention "
        "needs features of 2 x 2 positions or more"
    )
    if used := [key for key in _TERMS if getattr(loss, key)]:
        keys = " ".join(f"--config.generator.{key}=0" for key in used)
        raise UserError(
            f"{found}. Return the features of an earlier stage (acq/models/README.md), "
            f"or quantize without attention: {keys}."
        )
    logging.warning("%s: centres and attention in the results mean nothing", found)


def _features_shape(teacher: Classifier) -> tuple[int, ...]:
    x = jax.ShapeDtypeStruct(teacher.record.image_shape(1), jnp.float32)

    def apply(variables: Any, x: jax.Array) -> Any:
        return teacher.network.apply(variables, x)

    _, features = jax.eval_shape(apply, teacher.variables, x)
    return features.shape
