"""The teacher's outputs for a batch: logits, attention, BatchNorm statistics.

They are computed in evaluation mode, or in training mode, where BatchNorm normalises by
the batch. ACQ compares the attention of both modes. The teacher's variables are only
read; the updates of training mode are dropped.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from acq.kernels.attention import attention_map
from common.errors import UserError
from common.typing import PyTree

AttentionForm = Literal["energy", "grad_cam"]
ATTENTION_FORMS: tuple[AttentionForm, ...] = ("energy", "grad_cam")
# This share of a signed map's mean absolute value is added to its positive part.
_FLOOR = 1e-3
_TINY = 1e-12


class View(NamedTuple):
    """One pass of the teacher over a batch.

    Attributes:
      logits: of the classes.
      attention: not negative, sums to 1 over each image's positions.
      statistics: {...: {mean, var}}, of the batch at each BatchNorm layer's input.
    """

    logits: Float[Array, "n k"]
    attention: Float[Array, "n h w"]
    statistics: PyTree


def observe(
    network: nn.Module,
    variables: PyTree,
    images: Float[Array, "n h w c"],
    label: Int[Array, "n"],
    *,
    train: bool,
    attention: AttentionForm = "energy",
) -> View:
    """Returns the teacher's outputs, differentiable with respect to the images.

    Args:
      network: the teacher's; `axis_name` of its layers defines the whole batch.
      variables: `params` and `batch_stats`.
      images: normalised.
      label: the classes for 'grad_cam'.
      train: whether BatchNorm normalises by the batch.
      attention: 'energy', the sum over channels of the squared features, or
        'grad_cam', for networks that call `acq.layers.float.perturbed`.

    Raises:
      UserError: 'grad_cam' for a network that does not call it.
    """

    def apply(given: PyTree, *more: str) -> Any:
        return network.apply(given, images, train=train, mutable=["bn_inputs", *more])

    if attention == "energy":
        (logits, features), changed = apply(variables)
        return View(logits, attention_map(features), changed["bn_inputs"])

    _, made = jax.eval_shape(lambda: apply(variables, "perturbations"))
    if "features" not in made.get("perturbations", {}):
        raise UserError(
            "config.generator.attention: got 'grad_cam', but "
            f"{type(network).__name__} does not call acq.layers.float.perturbed(self, "
            "x) on its features (acq/models/README.md): add the call, or give 'energy'"
        )

    def label_logits(shift: jax.Array) -> Any:
        shifted = {**variables, "perturbations": {"features": shift}}
        (logits, features), changed = apply(shifted)
        chosen = jnp.take_along_axis(logits, label[:, None], axis=1)
        return jnp.sum(chosen), (logits, features, changed)

    shape = made["perturbations"]["features"]
    zeros = jnp.zeros(shape.shape, shape.dtype)
    gradient, (logits, features, changed) = jax.grad(label_logits, has_aux=True)(zeros)
    return View(logits, grad_cam(features, gradient), changed["bn_inputs"])


def grad_cam(
    features: Float[Array, "n h w c"], gradient: Float[Array, "n h w c"]
) -> Float[Array, "n h w"]:
    """Returns Grad-CAM, ReLU(sum_c mean(gradient_c) F_c), normalised to a sum of 1.

    With a head of mean pooling and one dense layer it is the rectified class activation
    map. Selvaraju et al., ICCV 2017.

    Departs from the paper: a thousandth of the mean of |sum_c ...| is added everywhere.
    So a map that is hardly above 0 is nearly uniform, with a bounded gradient. A map
    that is 0 everywhere is uniform, with gradient 0.

    Args:
      features: of the last convolutional stage.
      gradient: of the label's logit with respect to the features.
    """
    weight = jnp.mean(gradient, axis=(1, 2), keepdims=True)
    signed = jnp.sum(weight * features, axis=-1)
    size = jnp.mean(jnp.abs(signed), axis=(1, 2), keepdims=True)
    positive = nn.relu(signed) + _FLOOR * size + _TINY
    return positive / jnp.sum(positive, axis=(1, 2), keepdims=True)
