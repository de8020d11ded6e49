"""How far rounding the weights of one layer moves a network's outputs, without data.

    s(layer, bits) = mean over images of KL(p_float || p_rounded)

p is the softmax of the logits. The network is the float one; only the kernel of this
layer is rounded, as the student rounds it. The images are standard normal noise, like
those of the baseline `noise`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from acq.classifier import Classifier
from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import Grid
from acq.layers.quantized import kernel_range
from acq.training.losses import distillation_loss
from common.progress import Progress
from common.typing import PyTree

# As many images as have about so many pixels, but within these limits.
_PIXELS = 1 << 17
_FEWEST, _MOST = 8, 128


def measure_sensitivity(
    teacher: Classifier,
    layers: Sequence[str],
    bits: Sequence[int],
    *,
    symmetric: bool,
    seed: int,
) -> dict[str, list[float]]:
    """Returns {layer: its sensitivity at each of `bits`}, in nats.

    A pass of the network is compiled once, for all layers and bits.

    Args:
      teacher: the float network.
      layers: names of convolutions and dense layers.
      bits: 2 to 8.
      symmetric: whether the grids are symmetric around 0.
      seed: of the images.
    """
    shape = teacher.record.image_shape(_image_count(teacher.record.image_size))
    images = jax.random.normal(jax.random.key(seed), shape)
    flat = flatten_dict(jax.device_put(teacher.variables), sep="/")
    kernels = {name: flat[f"params/{name}/kernel"] for name in layers}
    logits_of, divergence_of = _passes(teacher.network)
    logits = logits_of(teacher.variables, images)
    found: dict[str, list[float]] = {name: [] for name in layers}
    with Progress("sensitivity", len(layers) * len(bits), "roundings") as progress:
        for n in bits:
            rounded = _round_kernels(kernels, Grid(n, symmetric=symmetric))
            for name in layers:
                changed = {**flat, f"params/{name}/kernel": rounded[name]}
                variables = unflatten_dict(changed, sep="/")
                found[name].append(float(divergence_of(variables, images, logits)))
                progress.update()
    return found


def _image_count(size: int) -> int:
    return int(np.clip(_PIXELS // size**2, _FEWEST, _MOST))


@functools.cache
def _passes(
    network: nn.Module,
) -> tuple[
    Callable[[PyTree, jax.Array], jax.Array],
    Callable[[PyTree, jax.Array, jax.Array], jax.Array],
]:
    """Returns the jitted `logits` and the divergence from them, of a network."""

    def logits_of(variables: PyTree, images: jax.Array) -> jax.Array:
        return network.apply(variables, images)[0]

    def divergence_of(
        variables: PyTree, images: jax.Array, logits: jax.Array
    ) -> jax.Array:
        return distillation_loss(logits_of(variables, images), logits, temperature=1)

    return jax.jit(logits_of), jax.jit(divergence_of)


@functools.partial(jax.jit, static_argnums=1)
def _round_kernels(
    kernels: Mapping[str, Float[Array, "..."]], grid: Grid
) -> dict[str, jax.Array]:
    """Returns kernels rounded per output channel, as `QuantLayers` rounds them."""
    return {
        name: fake_quant(kernel, *kernel_range(kernel), grid=grid, gradient="identity")
        for name, kernel in kernels.items()
    }
