"""Ranges of the rounded network, from images or from BatchNorm parameters alone.

Whatever images are used, and whatever they are called, they are only shown to the float
network here, and each convolution's input gives a range. From BatchNorm parameters: its
outputs are draws with mean `bias` and deviation `scale` in each channel, and the rest
is computed; what comes before the first BatchNorm sees noise.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from acq.denoisers.bits import NetworkBits
from acq.denoisers.bounds import cut_off
from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import MAX_BITS, Grid
from acq.layers.float import sow_latest
from acq.layers.observed import RangeMethod, value_range
from common.image_network import ImageNetwork
from common.intercepted import intercepted, name_of
from common.typing import PyTree

# Shares of a channel's largest weight that 'mse' tries.
_SHARES = 40


def noise_images(network: ImageNetwork, count: int, side: int, seed: int) -> jax.Array:
    """Returns images whose pixels are uniform over the range of the unit."""
    return jax.random.uniform(
        jax.random.key(seed),
        (count, side, side, network.channels),
        minval=network.low,
        maxval=network.high,
    )


def ranges_of_images(
    network: ImageNetwork,
    bits: NetworkBits,
    batches: Iterable[jax.Array],
    *,
    method: RangeMethod = "mse",
    gaussian_seed: int | None = None,
    bound: float | None = None,
) -> PyTree:
    """Returns the collection `ranges`: the means over batches of each batch's.

    The input of the first convolution is known without images: with 8 bits its range is
    that of `network.stored`. With fewer, steps would cost more than what images that
    lack dense bone cut off.

    Args:
      network: the float network.
      bits: of its convolutions.
      batches: images, all of one shape.
      method: see `acq.layers.observed.value_range`.
      gaussian_seed: of the draws in the place of BatchNorm's outputs; None: it computes
        as it does.
      bound: of BatchNorm's inputs, for generated images; see `bounds`.

    Raises:
      ValueError: there is no batch.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("ranges of images need at least one batch")
    drawn = gaussian_seed is not None
    ranges_of = _observer(network, bits, method, drawn=drawn, bound=bound)
    found = [
        ranges_of(
            images, jax.random.fold_in(jax.random.key(gaussian_seed or 0), number)
        )
        for number, images in enumerate(batches)
    ]
    mean = jax.tree.map(lambda *each: sum(each) / len(each), *found)
    flat: dict[str, Any] = dict(flatten_dict(mean, sep="/"))
    first = bits.names[0]
    if bits.of_input(first).bits == MAX_BITS:
        flat |= _of_stored(network, bits, first, batches[0].shape[1:])
    return with_weight_ends(
        unflatten_dict(flat, sep="/"), network.variables["params"], bits, method
    )


def _observer(
    network: ImageNetwork,
    bits: NetworkBits,
    method: RangeMethod,
    *,
    drawn: bool,
    bound: float | None = None,
) -> Callable[[jax.Array, jax.Array], PyTree]:
    """Returns a jitted function from images and a key to ranges of a batch."""

    def see(module: nn.Module, x: jax.Array) -> jax.Array:
        grid = bits.of_input(name_of(module))
        low, high = value_range(x, grid, method)
        sow_latest(module, "ranges", low=low, high=high)
        return x

    @jax.jit
    def ranges_of(variables: PyTree, images: jax.Array, rng: jax.Array) -> PyTree:
        at_norm = _Drawn(rng) if drawn else None
        with intercepted(see, at_norm, before_norm=cut_off(bound)):
            _, sown = network.module.apply(variables, images, mutable=["ranges"])
        return sown["ranges"]

    return functools.partial(ranges_of, network.variables)


def _of_stored(
    network: ImageNetwork, bits: NetworkBits, first: str, shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Returns the range of the first convolution's input, whatever comes before it.

    It is that of two flat images: of the least and of the greatest stored value.
    """
    ends = jnp.stack([jnp.full(shape, end) for end in network.stored])
    seen = _observer(network, bits, "minmax", drawn=False)(ends, jax.random.key(0))
    found: dict[str, Any] = dict(flatten_dict(seen, sep="/"))
    return {name: found[name] for name in (f"{first}/low", f"{first}/high")}


class _Drawn:
    """Draws in the place of each BatchNorm's output, normal and independent."""

    def __init__(self, rng: jax.Array) -> None:
        self._rng, self._count = rng, 0

    def __call__(self, module: nn.BatchNorm, x: jax.Array) -> jax.Array:
        self._count += 1
        rng = jax.random.fold_in(self._rng, self._count)
        scale, bias = (
            jnp.asarray(module.get_variable("params", name)).reshape(1, 1, 1, -1)
            for name in ("scale", "bias")
        )
        return bias + scale * jax.random.normal(rng, x.shape)


def with_weight_ends(
    ranges: PyTree, params: PyTree, bits: NetworkBits, method: RangeMethod
) -> PyTree:
    """Returns `ranges` with `end` of each output channel of each convolution."""
    flat: dict[str, Any] = dict(flatten_dict(ranges, sep="/"))
    kernels: dict[str, Any] = dict(flatten_dict(params, sep="/"))
    for name in bits.names:
        grid = bits.of_weights(name)
        flat[f"{name}/end"] = weight_ends(kernels[f"{name}/kernel"], grid, method)
    return unflatten_dict(flat, sep="/")


def weight_ends(kernel: jax.Array, grid: Grid, method: RangeMethod) -> jax.Array:
    """Returns (o,): the largest weight of each channel, or the share of least error."""
    flat = kernel.reshape(-1, kernel.shape[-1])
    largest = jnp.max(jnp.abs(flat), axis=0)
    if method == "minmax":
        return largest

    def error(share: jax.Array) -> jax.Array:
        end = share * largest
        rounded = fake_quant(flat, -end, end, grid=grid, gradient="identity")
        return jnp.sum(jnp.square(rounded - flat), axis=0)

    shares = jnp.arange(1, _SHARES + 1) / _SHARES
    return shares[jnp.argmin(jax.lax.map(error, shares), axis=0)] * largest
