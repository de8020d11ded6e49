"""The float network's view of images: outputs, attention, BatchNorm statistics."""

from typing import NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from acq.denoisers.bounds import LAST_BOUND, cut_off
from acq.kernels.attention import attention_map
from acq.layers.float import sow_latest
from acq.layers.operations import batch_statistics
from acq.training.losses import statistics_loss
from common.image_network import ImageNetwork
from common.intercepted import intercepted, name_of
from common.typing import PyTree


class View(NamedTuple):
    """One pass of the float network over a batch.

    Attributes:
      outputs: of the network.
      attention: the share of each position in the energy of the last convolution's
        input; sums to 1 for each image.
      statistics: {...: {mean, var}}, of the batch at each BatchNorm's input.
      inputs: {...: {x}}, of each convolution.
    """

    outputs: Float[Array, "n h w 1"]
    attention: Float[Array, "n h w"]
    statistics: PyTree
    inputs: PyTree


def observe(
    module: nn.Module,
    variables: PyTree,
    images: Float[Array, "n h w c"],
    *,
    last: str,
    train: bool = False,
    axis_name: str | None = None,
    bound: float | Float[Array, ""] | None = None,
) -> View:
    """Returns the network's view, differentiable by the images.

    Args:
      module: the float network; with `axis_name` if it has that attribute.
      variables: its variables; they do not change.
      images: in its unit.
      last: path of its last convolution.
      train: whether BatchNorm normalises by the batch.
      axis_name: pmapped axis whose joined batch has the statistics.
      bound: of BatchNorm's inputs, after their statistics are taken; see `bounds`.
    """
    kept = []

    def at_convolution(module: nn.Module, x: jax.Array) -> jax.Array:
        sow_latest(module, "inputs", x=x)
        if name_of(module) == last:
            kept.append(x)
        return x

    def at_norm(module: nn.BatchNorm, x: jax.Array) -> None:
        mean, var = batch_statistics(x, axis_name)
        sow_latest(module, "statistics", mean=mean, var=var)

    mutable = ["inputs", "statistics", *(["batch_stats"] if train else [])]
    with intercepted(at_convolution, at_norm, before_norm=cut_off(bound)):
        outputs, sown = module.apply(variables, images, train=train, mutable=mutable)
    attention = attention_map(kept[-1])
    return View(outputs, attention, sown.get("statistics", {}), sown["inputs"])


def statistics_distance(
    network: ImageNetwork, images: Float[Array, "n h w c"], last: str
) -> float:
    """Returns the relative statistics loss of generated images, as one batch.

    It is at most 0.15 where the generator learned (DnCNN, U-Net, NAFNet), and 1.1 of a
    NAFNet's that did not.

    Args:
      network: the float network, with batch normalisation.
      images: in its unit.
      last: path of its last convolution.
    """

    @jax.jit
    def distance(variables: PyTree, images: jax.Array) -> jax.Array:
        view = observe(network.module, variables, images, last=last, bound=LAST_BOUND)
        return statistics_loss(view.statistics, variables["batch_stats"], "relative")

    return float(distance(network.variables, images))
