"""How far rounding the weights of one layer moves a network's outputs, without data.

    s(layer, bits) = mean over draws of KL(p_float || p_rounded)

p is the softmax of the logits. The network is the float one; only the kernel of this
layer is rounded, as the student rounds it. Its BatchNorm layers are held at draws from
their own statistics (`acq/layers/held.py`), so that the layers after the rounded one
work as they do on images. On noise as images they do not, and this orders the layers
wrongly: docs/acq.md has the measurement.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from acq.classifier import Classifier
from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import Grid
from acq.layers.held import HeldLayers
from acq.layers.quantized import kernel_range
from acq.training.losses import distillation_loss
from common.progress import Progress
from common.typing import PyTree

# As many draws as have about so many pixels, but within these limits.
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
      seed: of the draws.
    """
    shape = teacher.record.image_shape(_draws(teacher.record.image_size))
    image_rng, norm_rng = jax.random.split(jax.random.key(seed))
    images = jax.random.normal(image_rng, shape)
    network = teacher.with_layers(HeldLayers())
    held = _make_hold(network)(teacher.variables, images, norm_rng)
    logits_of, divergence_of = make_passes(network)
    logits = logits_of({**teacher.variables, **held}, images)
    found: dict[str, list[float]] = {name: [] for name in layers}
    with Progress("sensitivity", len(layers) * len(bits), "roundings") as progress:
        for name, _, variables in rounded_alone(
            teacher, layers, bits, symmetric=symmetric
        ):
            moved = divergence_of({**variables, **held}, images, logits)
            found[name].append(float(moved))
            progress.update()
    return found


def _draws(image_size: int) -> int:
    return int(np.clip(_PIXELS // image_size**2, _FEWEST, _MOST))


def rounded_alone(
    teacher: Classifier, layers: Sequence[str], bits: Sequence[int], *, symmetric: bool
) -> Iterator[tuple[str, int, PyTree]]:
    """Yields (layer, bits, variables) with the kernel of this layer alone rounded.

    Args:
      teacher: the float network.
      layers: names of convolutions and dense layers.
      bits: 2 to 8; all layers for one number of bits before the next.
      symmetric: whether the grids are symmetric around 0.
    """
    flat = flatten_dict(jax.device_put(teacher.variables), sep="/")
    kernels = {name: flat[f"params/{name}/kernel"] for name in layers}
    for n in bits:
        rounded = _round_kernels(kernels, Grid(n, symmetric=symmetric))
        for name in layers:
            changed = {**flat, f"params/{name}/kernel": rounded[name]}
            yield name, n, unflatten_dict(changed, sep="/")


@functools.cache
def _make_hold(
    network: nn.Module,
) -> Callable[[PyTree, jax.Array, jax.Array], PyTree]:
    """Returns the jitted `hold(variables, images, rng) -> {'offsets': ...}`."""

    def hold(variables: PyTree, images: jax.Array, rng: jax.Array) -> PyTree:
        return network.apply(
            variables, images, mutable=["offsets"], rngs={"gaussian": rng}
        )[1]

    return jax.jit(hold)


@functools.cache
def make_passes(
    network: nn.Module,
) -> tuple[
    Callable[[PyTree, jax.Array], jax.Array],
    Callable[[PyTree, jax.Array, jax.Array], jax.Array],
]:
    """Returns a network's jitted `logits(variables, images)`, and a divergence.

    The divergence, of (variables, images, logits), is the mean KL from the given logits
    to those of the variables.
    """

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
