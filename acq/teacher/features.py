"""Whether attention can be read from a teacher's features."""

from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from acq.classifier import Classifier
from acq.training.step_parts import GeneratorLoss
from common.errors import UserError

_TERMS = ("center_weight", "consistency_weight")


def check_features(teacher: Classifier, loss: GeneratorLoss) -> None:
    """Refuses features of a single position where attention is used; warns elsewhere.

    Attention is a distribution over positions: over one, it is always the same.

    Args:
      teacher: Whose features they are.
      loss: The generator's.

    Raises:
      UserError: Terms of the generator's loss read attention that is none.
    """
    shape = _features_shape(teacher)
    if shape[1] * shape[2] > 1:
        return
    found = (
        f"{teacher.record.name}: its features are {shape[1]} x {shape[2]} for images "
        f"of {teacher.record.image_size} x {teacher.record.image_size}: attention, "
        "which is read from them, needs 2 x 2 positions or more"
    )
    if used := [key for key in _TERMS if getattr(loss, key)]:
        keys = " ".join(f"--config.generator.{key}=0" for key in used)
        raise UserError(
            f"{found}. Return the features of an earlier stage (acq/models/README.md), "
            f"or quantize without attention: {keys}."
        )
    logging.warning("%s: centres and attention in the results say nothing", found)


def _features_shape(teacher: Classifier) -> tuple[int, ...]:
    x = jax.ShapeDtypeStruct(teacher.record.image_shape(1), jnp.float32)

    def apply(variables: Any, x: jax.Array) -> Any:
        return teacher.network.apply(variables, x)

    _, features = jax.eval_shape(apply, teacher.variables, x)
    return features.shape
