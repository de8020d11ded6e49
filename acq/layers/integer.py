"""Layers of a quantized network that holds integers, and conversions to and from it.

`IntegerLayers` in the place of `QuantLayers` makes the same network from what is stored
of it. Its logits are bit for bit those of the fake-quantized network: codes are turned
into the same floats, and all else is the same file.

    collection   leaves of a module
    integers     conv, dense: kernel (int8 or uint8 codes), scale (float32) and
                 zero_point (as the codes), one for every output channel
                 quantized activation: scale (float32), zero_point (uint8 or int8)
    params       biases; batch norm: scale, bias. No kernels.
    batch_stats  batch norm: mean, var

A value is (code - zero_point) * scale; which integers are stored is said in
`acq/kernels/integer_codes.py`. Codes of fewer than 8 bits take a byte each.

The conversions run the network, as only it knows which module is what: they work for
any network that is made of layers.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flax.typing import Initializer

from acq.kernels.grid import Grid, dequantize, quantize
from acq.kernels.integer_codes import code_dtype, from_codes, zero_point_dtype
from acq.layers.bits import LayerBits, own_grid
from acq.layers.float import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    sow_latest,
)
from acq.layers.operations import ActivationKind, activate
from acq.layers.quantized import QuantLayers
from common.errors import UserError
from common.typing import PyTree


@dataclasses.dataclass(frozen=True)
class IntegerLayers:
    """Layers of a network of integers, for inference.

    Attributes:
      kernels: Grid of convolutions' and dense layers' kernels.
      activations: Grid of rectifiers' outputs.
      others: Grid of "identity" activations; None leaves them float.
      bits: Of layers that have their own, by name.
    """

    kernels: Grid
    activations: Grid
    others: Grid | None = None
    bits: LayerBits = ()

    def conv(
        self,
        features: int,
        kernel_size: int,
        *,
        strides: int = 1,
        padding: int,
        groups: int = 1,
        use_bias: bool = False,
        name: str,
    ) -> nn.Module:
        """A convolution with a stored kernel."""
        return IntegerConv(
            features,
            kernel_size,
            strides,
            padding,
            groups,
            use_bias,
            grid=self.kernels,
            bits=self.bits,
            name=name,
        )

    def dense(self, features: int, *, name: str) -> nn.Module:
        """An affine map with a stored kernel."""
        return IntegerDense(features, grid=self.kernels, bits=self.bits, name=name)

    def batch_norm(self, *, epsilon: float = 1e-5, name: str) -> nn.Module:
        """A float `BatchNorm`."""
        return BatchNorm(epsilon, name=name)

    def activation(self, kind: ActivationKind, *, name: str) -> nn.Module:
        """An activation with a rounded output."""
        grid = self.others if kind == "identity" else self.activations
        if grid is None:
            return Activation(kind, name=name)
        return IntegerActivation(kind, grid=grid, bits=self.bits, name=name)


class IntegerConv(Conv, kw_only=True):
    """`Conv` with a kernel of integers.

    Attributes:
      grid: Of the kernel.
      bits: Of layers that have their own.
    """

    grid: Grid
    bits: LayerBits = ()

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """What the stored kernel stands for."""
        return _stored_kernel(self, shape)


class IntegerDense(Dense, kw_only=True):
    """`Dense` with a kernel of integers.

    Attributes:
      grid: Of the kernel.
      bits: Of layers that have their own.
    """

    grid: Grid
    bits: LayerBits = ()

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """What the stored kernel stands for."""
        return _stored_kernel(self, shape)


class IntegerActivation(Activation, kw_only=True):
    """`Activation` with an output rounded by a stored scale and zero point.

    Attributes:
      grid: Of the output.
      bits: Of layers that have their own.
    """

    grid: Grid
    bits: LayerBits = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Values of the shape of `x`."""
        grid = own_grid(self, self.grid, self.bits)
        scale = self.variable("integers", "scale", jnp.ones, (), jnp.float32).value
        zero_point = self.variable(
            "integers", "zero_point", jnp.zeros, (), zero_point_dtype(grid)
        ).value.astype(jnp.float32)
        sow_latest(
            self,
            "ranges",
            low=(grid.qmin - zero_point) * scale,
            high=(grid.qmax - zero_point) * scale,
        )
        codes = quantize(activate(x, self.kind), scale, zero_point, grid)
        return dequantize(codes, scale, zero_point)


def _stored_kernel(
    module: IntegerConv | IntegerDense, shape: tuple[int, ...]
) -> jax.Array:
    dtype = code_dtype(own_grid(module, module.grid, module.bits))
    channels = shape[-1:]
    codes = module.variable("integers", "kernel", jnp.zeros, shape, dtype)
    scale = module.variable("integers", "scale", jnp.ones, channels, jnp.float32)
    zero_point = module.variable("integers", "zero_point", jnp.zeros, channels, dtype)
    kernel = from_codes(codes.value, scale.value, zero_point.value)
    sow_latest(module, "kernels", kernel=kernel)
    return kernel


def integer_layers(layers: QuantLayers) -> IntegerLayers:
    """The layers that hold what `layers` rounds to."""
    return IntegerLayers(
        layers.kernels.grid,
        layers.activations.grid,
        None if layers.others is None else layers.others.grid,
        layers.bits,
    )


def to_integers(
    network: nn.Module, variables: PyTree, x: jax.Array
) -> tuple[nn.Module, PyTree]:
    """Returns the network of integers and its variables.

    Args:
      network: Made of `QuantLayers`.
      variables: Its `params`, `batch_stats` and `ranges`.
      x: Input of any values; only its shape matters, one image will do.

    Raises:
      UserError: Weights that are not finite, or ranges never observed or not finite.
    """
    layers = network.layers
    if not isinstance(layers, QuantLayers):
        raise TypeError(
            f"only a network of QuantLayers has integers, got one of {layers!r}"
        )
    integers = _flat(_collected(network, variables, x, "integers"))
    bad = [
        "/".join(path[:-1])
        for path, leaf in integers.items()
        if path[-1] == "scale" and not np.all(np.isfinite(leaf))
    ]
    if bad:
        raise UserError(
            f"no finite scale at {', '.join(bad)}: weights hold an infinity or NaN, or "
            "the range of an activation was never observed; observe ranges first"
        )
    kept = {k: v for k, v in variables.items() if k not in ("params", "ranges")}
    params = _flat(variables["params"])
    variables = kept | {
        "params": _nested({k: v for k, v in params.items() if k not in integers}),
        "integers": _nested(integers),
    }
    return network.clone(layers=integer_layers(layers)), variables


def from_integers(network: nn.Module, variables: PyTree, x: jax.Array) -> PyTree:
    """Returns float variables, `params`, `batch_stats` and `ranges`, of integers.

    Kernels hold the values that the codes stand for, so that the float network with
    them is quantized in its weights. Rounding them anew gives the same codes where each
    channel's range is that of its weights, and scales within float32's precision.

    Args:
      network: Made of `IntegerLayers`.
      variables: Its `integers`, `params` and `batch_stats`.
      x: Input of any values; only its shape matters, one image will do.
    """
    kernels = _collected(network, variables, x, "kernels")
    kept = {k: v for k, v in variables.items() if k not in ("params", "integers")}
    return kept | {
        "params": _nested(_flat(variables["params"]) | _flat(kernels)),
        "ranges": _collected(network, variables, x, "ranges"),
    }


def _collected(
    network: nn.Module, variables: PyTree, x: jax.Array, collection: str
) -> PyTree:
    """What the modules put into a collection; nothing else of the pass is computed."""

    @jax.jit
    def collect(variables: PyTree, x: jax.Array) -> PyTree:
        return network.apply(variables, x, mutable=[collection])[1]

    return collect(variables, x).get(collection, {})


def _flat(tree: PyTree) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(tree)


def _nested(leaves: dict[tuple[str, ...], Any]) -> PyTree:
    return traverse_util.unflatten_dict(leaves)
