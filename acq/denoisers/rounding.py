"""A network whose convolutions have rounded kernels and rounded inputs.

    kernel   symmetric around 0, a range [-end, end] for each output channel; so a
             BatchNorm that follows is folded without a new rounding: its factor goes
             into the channel's scale
    input    asymmetric, one range [low, high] for the whole tensor
    output   float: also that of the last convolution, and the sum with the network's
             input. On 8 bits that sum would have steps of 12 HU.

The collection `ranges` has `low`, `high` and `end` at each convolution's path. `low`
and `high` are differentiated like parameters (`fake_quant`'s "learned"); `end` is not,
only weights inside of it are.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from acq.denoisers.bits import Convolution, NetworkBits
from acq.denoisers.bounds import cut_off
from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import scale_and_zero_point
from acq.kernels.scale_gradient import scale_gradient
from acq.layers.float import sow_latest
from acq.layers.quantized import learning_rate_factor
from common.image_network import Rounding
from common.intercepted import intercepted, name_of
from common.typing import PyTree


def apply_rounded(
    module: nn.Module,
    variables: PyTree,
    images: jax.Array,
    bits: NetworkBits,
    *,
    mutable: tuple[str, ...] = (),
    bound: float | None = None,
) -> tuple[jax.Array, PyTree]:
    """Returns the outputs of the rounded network, and collections that it sowed.

    Args:
      module: the float network.
      variables: its variables, with float kernels, and `ranges`.
      images: its input.
      bits: of its convolutions.
      mutable: collections to return: `inputs`, of each convolution before rounding.
      bound: of BatchNorm's inputs, for generated images; see `bounds`.
    """
    rounded = {
        **variables,
        "params": rounded_kernels(variables["params"], variables["ranges"], bits),
    }

    def round_input(module: nn.Module, x: jax.Array) -> jax.Array:
        sow_latest(module, "inputs", x=x)
        grid = bits.of_input(name_of(module))
        low, high = (module.get_variable("ranges", end) for end in ("low", "high"))
        factor = learning_rate_factor(math.prod(x.shape[1:]), grid)
        low, high = (scale_gradient(end, factor) for end in (low, high))
        # The lower end of a rectifier's output stays at 0.
        low = jnp.where(low < 0, low, 0.0)
        return fake_quant(x, low, high, grid=grid, gradient="learned")

    with intercepted(round_input, before_norm=cut_off(bound)):
        outputs, sown = module.apply(rounded, images, mutable=list(mutable))
    return outputs, sown


def rounded_kernels(params: PyTree, ranges: PyTree, bits: NetworkBits) -> PyTree:
    """Returns parameters whose kernels are rounded, each in its ranges."""
    flat: dict[str, Any] = dict(flatten_dict(params, sep="/"))
    ends: dict[str, Any] = dict(flatten_dict(ranges, sep="/"))
    for name in bits.names:
        kernel, end = map(jnp.asarray, (flat[f"{name}/kernel"], ends[f"{name}/end"]))
        grid = bits.of_weights(name)
        flat[f"{name}/kernel"] = fake_quant(
            kernel, -end, end, grid=grid, gradient="clipped"
        )
    return unflatten_dict(flat, sep="/")


def settled(
    variables: PyTree,
    bits: NetworkBits,
    convolutions: Sequence[Convolution],
) -> PyTree:
    """Returns variables with rounded kernels, and biases that int32 can hold.

    The bias of a convolution, with that of the BatchNorm after it, becomes a multiple
    of the input's scale times the weight's. With them `apply_rounded` computes what
    integer kernels do, up to float32's rounding of sums.

    Args:
      variables: of the network, with `ranges`.
      bits: of its convolutions.
      convolutions: all of them, in the order of `bits`.
    """
    ranges = variables["ranges"]
    params = rounded_kernels(variables["params"], ranges, bits)
    flat = {
        name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()
    }
    statistics = flatten_dict(variables.get("batch_stats", {}), sep="/")
    roundings = roundings_of(ranges, bits)
    for name, norm, epsilon in convolutions:
        step = roundings[name].scale * roundings[name].weight_scale.astype(np.float64)
        # Both: a result that is also used elsewhere keeps its normalisation apart.
        own = flat.get(f"{name}/bias")
        if own is not None:
            own = flat[f"{name}/bias"] = _rounded_to(own, step).astype(np.float32)
        if f"{norm}/bias" in flat and f"{norm}/scale" in flat:
            mean, var = (
                np.asarray(statistics[f"{norm}/{key}"]) for key in ("mean", "var")
            )
            factor = flat[f"{norm}/scale"] / np.sqrt(var + epsilon)
            shift = flat[f"{norm}/bias"] - mean * factor
            shift = shift + (0 if own is None else own * factor)
            change = _rounded_to(shift, step * np.abs(factor)) - shift
            flat[f"{norm}/bias"] = (flat[f"{norm}/bias"] + change).astype(np.float32)
    settled_params = {name: jnp.asarray(leaf) for name, leaf in flat.items()}
    return {**variables, "params": unflatten_dict(settled_params, sep="/")}


def _rounded_to(values: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Returns multiples of a step; a step of 0, or one too small for int32, is none."""
    codes = np.rint(values / np.where(step > 0, step, 1))
    return np.where((step > 0) & (np.abs(codes) < 1 << 30), codes * step, values)


def roundings_of(ranges: PyTree, bits: NetworkBits) -> dict[str, Rounding]:
    """Returns the numbers of the integer computation of each convolution."""
    flat = flatten_dict(ranges, sep="/")
    found = {}
    for name in bits.names:
        low, high, end = (
            jnp.asarray(flat[f"{name}/{key}"]) for key in ("low", "high", "end")
        )
        grid, of_weights = bits.of_input(name), bits.of_weights(name)
        scale, zero_point = scale_and_zero_point(jnp.minimum(low, 0.0), high, grid)
        weight_scale, _ = scale_and_zero_point(-end, end, of_weights)
        found[name] = Rounding(
            scale=float(scale),
            zero_point=int(zero_point),
            highest=grid.qmax,
            weight_scale=np.asarray(weight_scale),
            weight_bits=of_weights.bits,
        )
    return found
