"""Ranges of the activations before the student's first step.

They come from images (noise, samples, or real images for comparison), or only from the
teacher's BatchNorm layers. In the second case the outputs of BatchNorm are draws with
mean `bias` and standard deviation `scale` in every channel, and the network computes
the rest. A range is the smallest and the largest value ('minmax'), or the part of that
range with the least mean squared error of the quantized values ('mse').

Draws have thinner tails than features of images. Activations that learn their range,
and have few codes, begin well with it. "identity" activations have 8 bits as a rule,
for which a range that is twice too wide costs only one bit, and they may never learn.
So 8 bits of them get a range twice that of the draws. Their ranges also hold those of a
second pass, whose draws are the same in all pixels of an image: the mean over pixels
that are drawn independently hardly varies, that of an image's features does.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Key

from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import MAX_BITS, Grid
from acq.layers.bits import LayerBits, own_grid
from acq.layers.float import ActivationKind, FloatLayers, activate
from acq.layers.quantized import average_ranges
from common.typing import PyTree

RangeMethod = Literal["minmax", "mse"]
RANGE_METHODS: tuple[RangeMethod, ...] = ("minmax", "mse")
# How many shares of the whole range 'mse' tries.
_SHARES = 64
# 'mse' uses about this many values of a larger tensor.
_MOST_VALUES = 1 << 16
# Ranges of "identity" activations of 8 bits are this many times those of draws.
_MARGIN = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RangeLayers(FloatLayers):
    """Float layers whose activations sow the range for their quantization.

    Attributes:
      activations: the grid of rectified values; None for no ranges there.
      others: the grid of "identity" activations; None for no ranges there.
      method: 'minmax' or 'mse'.
      gaussian: whether batch normalisation ignores its input and draws N(bias,
        scale^2) from the random stream `gaussian`.
      same_pixels: whether such a draw is one for all pixels of an image.
      bits: of layers with other bits, by name.
    """

    activations: Grid | None
    others: Grid | None
    method: RangeMethod = "minmax"
    gaussian: bool = False
    same_pixels: bool = False
    bits: LayerBits = ()

    def batch_norm(self, *, epsilon: float = 1e-5, name: str) -> nn.Module:
        """Returns a `BatchNorm`, or a `GaussianNorm`."""
        if self.gaussian:
            return GaussianNorm(self.same_pixels, name=name)
        return super().batch_norm(epsilon=epsilon, name=name)

    def activation(self, kind: ActivationKind, *, name: str) -> nn.Module:
        """Returns a `RangedActivation`."""
        is_other = kind == "identity"
        return RangedActivation(
            kind,
            self.others if is_other else self.activations,
            self.method,
            self.bits,
            ample=is_other and self.gaussian and not self.same_pixels,
            name=name,
        )


class GaussianNorm(nn.Module):
    """Batch normalisation whose output is drawn, normal and independent.

    Attributes:
      same_pixels: whether all pixels of an image have the same draw.
    """

    same_pixels: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Draws of the shape of `x`: channel c has mean bias[c], deviation scale[c]."""
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        scale, bias = (
            jnp.asarray(self.get_variable("params", name)).reshape(shape)
            for name in ("scale", "bias")
        )
        drawn = (x.shape[0], *shape[1:]) if self.same_pixels else x.shape
        y = bias + scale * jax.random.normal(self.make_rng("gaussian"), drawn)
        return jnp.broadcast_to(y, x.shape)


class RangedActivation(nn.Module):
    """An activation that sows `low` and `high` of its output in `observed`.

    Attributes:
      kind: of the activation.
      grid: for its quantization; None for no range.
      method: 'minmax' or 'mse'.
      bits: of layers with other bits.
      ample: whether 8 bits have twice the range of 'minmax', whatever the method.
    """

    kind: ActivationKind
    grid: Grid | None
    method: RangeMethod
    bits: LayerBits = ()
    ample: bool = dataclasses.field(default=False, kw_only=True)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the activation, not quantized."""
        y = activate(x, self.kind)
        if self.grid is not None and self.is_mutable_collection("observed"):
            grid = own_grid(self, self.grid, self.bits)
            if self.ample and grid.bits == MAX_BITS:
                low, high = (_MARGIN * end for end in value_range(y, grid, "minmax"))
            else:
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
    """Returns {...: {low, high}}, the tree of `ranges`, computed without images.

    Args:
      network: the teacher's, with any layers.
      layers: define the ranges; `gaussian` is set.
      variables: the teacher's.
      image_shape: NHWC, of the pass. The images are standard normal noise; they have no
        effect after the first BatchNorm.
      rng: of the draws.
    """
    independent = dataclasses.replace(layers, gaussian=True)
    of_others = dataclasses.replace(independent, activations=None, same_pixels=True)

    def observe(layers: RangeLayers, variables: PyTree, rng: jax.Array) -> PyTree:
        image_rng, norm_rng = jax.random.split(rng)
        images = jax.random.normal(image_rng, image_shape)
        _, changed = network.clone(layers=layers).apply(
            variables, images, mutable=["observed"], rngs={"gaussian": norm_rng}
        )
        return changed["observed"]

    @jax.jit
    def draw(variables: PyTree, rng: jax.Array) -> PyTree:
        found = observe(independent, variables, rng)
        if layers.others is None:
            return found
        return _joined(found, observe(of_others, variables, rng))

    return draw(variables, rng)


def _joined(ranges: PyTree, more: PyTree) -> PyTree:
    """Returns ranges, each widened to hold that of `more`, which may have fewer."""
    joined: dict[Any, Any] = {**flatten_dict(ranges)}
    wider: dict[Any, Any] = {**flatten_dict(more)}
    for path, end in wider.items():
        join = jnp.minimum if path[-1] == "low" else jnp.maximum
        joined[path] = join(joined[path], end)
    return unflatten_dict(joined)


def ranges_from_images(
    network: nn.Module,
    layers: FloatLayers,
    variables: PyTree,
    batches: Iterable[Float[Array, "n h w c"]],
) -> PyTree:
    """Returns {...: {low, high}}, the mean over batches of each batch's range.

    Args:
      network: the teacher's, with any layers.
      layers: sow the ranges, such as `RangeLayers`.
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

    They are moving averages over batches of the smallest and largest value in the
    quantized network, which uses the ranges so far.

    Args:
      network: the student's, made with `QuantLayers`.
      variables: the teacher's.
      batches: normalised images, all of one shape.
      decay: of the average.

    Raises:
      ValueError: there is no batch.
    """

    @jax.jit
    def follow(variables: PyTree, ranges: PyTree, images: jax.Array) -> PyTree:
        _, changed = network.apply(
            {**variables, "ranges": ranges}, images, mutable=["observed"]
        )
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

    'minmax' gives the smallest and the largest value. 'mse' multiplies both by one of
    64 shares from 1/64 to 1: the one with the least mean squared quantization error.
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
    """Returns a stride over a tensor's values that meets every channel, row and column.

    A stride that shares a factor with the size would never meet some channels.
    """
    stride = max(1, size // _MOST_VALUES)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride
