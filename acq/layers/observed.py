"""The activations' ranges before the student's first step.

From images (noise, samples, or real ones for comparison), or from nothing but the
teacher's BatchNorm layers: their outputs are taken as normal with mean `bias` and
standard deviation `scale` in every channel, and the network's own activations and sums
do the rest. A range is the smallest and the largest value, or the part of it whose
quantization has the least mean squared error ('mse').
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import Grid
from acq.layers.bits import LayerBits, own_grid
from acq.layers.float import ActivationKind, FloatLayers, activate
from acq.layers.quantized import average_ranges
from common.typing import PyTree

RangeMethod = Literal["minmax", "mse"]
RANGE_METHODS: tuple[RangeMethod, ...] = ("minmax", "mse")
# Shares of the whole range that 'mse' tries.
_SHARES = 64
# About the most values of a tensor it looks at, one in so many.
_MOST_VALUES = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class RangeLayers(FloatLayers):
    """Float layers whose activations sow the range they would be quantized in.

    Attributes:
      activations: the grid of rectified values.
      others: of what else an integer runtime needs quantized; None for no ranges there.
      method: 'minmax' or 'mse'.
      gaussian: whether batch normalisation gives N(bias, scale^2) whatever comes in,
        by the random stream `gaussian`.
      bits: of layers that have their own, by name.
    """

    activations: Grid
    others: Grid | None
    method: RangeMethod = "minmax"
    gaussian: bool = False
    bits: LayerBits = ()

    def batch_norm(self, *, epsilon: float = 1e-5, name: str) -> nn.Module:
        """As in float networks, or a `GaussianNorm`."""
        if self.gaussian:
            return GaussianNorm(name=name)
        return super().batch_norm(epsilon=epsilon, name=name)

    def activation(self, kind: ActivationKind, *, name: str) -> nn.Module:
        """A `RangedActivation`."""
        grid = self.others if kind == "identity" else self.activations
        return RangedActivation(kind, grid, self.method, self.bits, name=name)


class GaussianNorm(nn.Module):
    """What a batch normalisation's output is if it is normal and independent."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Draws of the shape of `x`: channel c has mean bias[c], deviation scale[c]."""
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        scale, bias = (
            jnp.asarray(self.get_variable("params", name)).reshape(shape)
            for name in ("scale", "bias")
        )
        return bias + scale * jax.random.normal(self.make_rng("gaussian"), x.shape)


class RangedActivation(nn.Module):
    """An activation that sows `low` and `high` of its output in `observed`.

    Attributes:
      kind: of the activation.
      grid: it would be quantized on; None for none.
      method: 'minmax' or 'mse'.
      bits: of layers that have their own.
    """

    kind: ActivationKind
    grid: Grid | None
    method: RangeMethod
    bits: LayerBits = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The activation, not quantized."""
        y = activate(x, self.kind)
        if self.grid is not None and self.is_mutable_collection("observed"):
            grid = own_grid(self, self.grid, self.bits)
            low, high = value_range(y, grid, self.method)
            self.put_variable("observed", "low", low)
            self.put_variable("observed", "high", high)
        return y


def ranges_from_statistics(
    network: nn.Module,
    layers: RangeLayers,
    variables: PyTree,
    image_shape: tuple[int, int, int, int],
    rng: Key[Array, ""],
) -> PyTree:
    """Returns {...: {low, high}}, the tree of `ranges`, that needed no image.

    Args:
      network: the teacher's, in any layers.
      layers: which ranges; taken as `gaussian`.
      variables: the teacher's.
      image_shape: NHWC, of the pass; standard normal noise stands for the images, which
        have no say behind the first BatchNorm.
      rng: of the draws.
    """
    drawing = network.clone(layers=dataclasses.replace(layers, gaussian=True))

    @jax.jit
    def draw(variables: PyTree, rng: jax.Array) -> PyTree:
        image_rng, norm_rng = jax.random.split(rng)
        images = jax.random.normal(image_rng, image_shape)
        _, changed = drawing.apply(
            variables, images, mutable=["observed"], rngs={"gaussian": norm_rng}
        )
        return changed["observed"]

    return draw(variables, rng)


def ranges_from_images(
    network: nn.Module,
    layers: RangeLayers,
    variables: PyTree,
    batches: Iterable[Float[Array, "n h w c"]],
) -> PyTree:
    """Returns {...: {low, high}}, the mean over batches of each batch's range.

    Args:
      network: the teacher's, in any layers.
      layers: which ranges.
      variables: the teacher's.
      batches: normalised images, all of one shape.

    Raises:
      ValueError: there is no batch.
    """
    measuring = network.clone(layers=layers)

    @jax.jit
    def ranges_of(variables: PyTree, images: jax.Array) -> PyTree:
        return measuring.apply(variables, images, mutable=["observed"])[1]["observed"]

    found = [ranges_of(variables, images) for images in batches]
    if not found:
        raise ValueError("ranges from images need at least one batch")
    return jax.tree.map(lambda *each: sum(each) / len(each), *found)


def ranges_as_observed(
    network: nn.Module,
    variables: PyTree,
    batches: Iterable[Float[Array, "n h w c"]],
    *,
    decay: float,
) -> PyTree:
    """Returns {...: {low, high}} as GDFQ observes them, before any training.

    A moving average over batches of the smallest and largest value that the quantized
    network meets, in the ranges so far.

    Args:
      network: the student's, made of `QuantLayers`.
      variables: the teacher's.
      batches: normalised images, all of one shape.
      decay: of the average.

    Raises:
      ValueError: there is no batch.
    """

    @jax.jit
    def follow(variables: PyTree, ranges: PyTree, images: jax.Array) -> PyTree:
        given = {**variables, "ranges": ranges}
        _, changed = network.apply(given, images, mutable=["observed"])
        return average_ranges(ranges, changed["observed"], decay)

    ranges = None
    for images in batches:
        if ranges is None:
            made = jax.eval_shape(network.init, jax.random.key(0), images)["ranges"]
            ranges = jax.tree.map(lambda end: jnp.full(end.shape, jnp.nan), made)
        ranges = follow(variables, ranges, images)
    if ranges is None:
        raise ValueError("ranges from images need at least one batch")
    return ranges


def value_range(
    values: Float[Array, "*shape"], grid: Grid, method: RangeMethod
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns (low, high) to quantize `values` in.

    'minmax' is the smallest and the largest value. 'mse' takes a share of both, of 64
    from 1/64 to 1, with the least mean squared error of the values quantized.
    """
    low, high = jnp.min(values), jnp.max(values)
    if method == "minmax":
        return low, high
    flat = values.ravel()[:: _stride(values.size)]

    def error(share: jax.Array) -> jax.Array:
        quantized = fake_quant(
            flat, low * share, high * share, grid=grid, gradient="identity"
        )
        return jnp.mean(jnp.square(quantized - flat))

    shares = jnp.arange(1, _SHARES + 1) / _SHARES
    best = shares[jnp.argmin(jax.lax.map(error, shares))]
    return low * best, high * best


def _stride(size: int) -> int:
    """At which values of a tensor are taken: of every channel, row and column alike.

    A stride that shares a factor with the size would meet some channels never.
    """
    stride = max(1, size // _MOST_VALUES)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride
