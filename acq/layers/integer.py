"""Layers of a quantized network that holds integers, and the conversion to it.

`IntegerLayers` instead of `QuantLayers` makes the same network from stored integers.
Its logits are bit for bit those of the fake-quantized network, because the codes give
the same floats and the network is the same file.

    collection   leaves of a module
    integers     conv, dense: kernel (int8 or uint8 codes), scale (float32) and
                 zero_point (as the codes), one for every output channel
                 quantized activation: scale (float32), zero_point (uint8 or int8)
    params       biases; batch norm: scale, bias. No kernels.
    batch_stats  batch norm: mean, var

A value is (code - zero_point) * scale. `acq/kernels/integer_codes.py` defines which
integers are stored. Codes of fewer than 8 bits take one byte each.

The conversion runs the network, because only the network knows its modules. So it works
for any network that is made with a layers object.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from flax.typing import Initializer

from acq.kernels.grid import Grid, dequantize, quantize
from acq.kernels.integer_codes import code_dtype, from_codes, zero_point_dtype
from acq.layers.bits import LayerBits, own_grid
from acq.layers.float import Activation, Conv, Dense, FloatLayers
from acq.layers.operations import ActivationKind, activate
from acq.layers.quantized import QuantLayers
from common.errors import UserError
from common.typing import PyTree


class IntegerConv(Conv, kw_only=True):
    """`Conv` with a kernel of integers.

    Attributes:
      grid: Of the kernel.
      bits: Of layers with other bits.
    """

    grid: Grid
    bits: LayerBits = ()

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """Returns the values of the stored kernel."""
        return _stored_kernel(self, shape)


class IntegerDense(Dense, kw_only=True):
    """`Dense` with a kernel of integers.

    Attributes:
      grid: Of the kernel.
      bits: Of layers with other bits.
    """

    grid: Grid
    bits: LayerBits = ()

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """Returns the values of the stored kernel."""
        return _stored_kernel(self, shape)


class IntegerActivation(Activation, kw_only=True):
    """`Activation` with an output rounded by a stored scale and zero point.

    Attributes:
      grid: Of the output.
      bits: Of layers with other bits.
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
    return from_codes(codes.value, scale.value, zero_point.value)


@dataclasses.dataclass(frozen=True)
class IntegerLayers(FloatLayers):
    """Layers of a network of integers, for inference.

    Attributes:
      kernels: Grid of the kernels of convolutions and dense layers.
      activations: Grid of the outputs of rectifiers.
      others: Grid of "identity" activations; None leaves them float.
      bits: Of layers with other bits, by name.
    """

    conv_type: ClassVar[type[Conv]] = IntegerConv
    dense_type: ClassVar[type[Dense]] = IntegerDense
    kernels: Grid
    activations: Grid
    others: Grid | None = None
    bits: LayerBits = ()

    def kernel_options(self) -> dict[str, Any]:
        """Returns grid and bits of the kernels."""
        return {"grid": self.kernels, "bits": self.bits}

    def activation(self, kind: ActivationKind, *, name: str) -> nn.Module:
        """Returns an activation with a rounded output."""
        grid = self.others if kind == "identity" else self.activations
        if grid is None:
            return Activation(kind, name=name)
        return IntegerActivation(kind, grid=grid, bits=self.bits, name=name)


def integer_layers(layers: QuantLayers) -> IntegerLayers:
    """Returns the integer layers with the grids of `layers`."""
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
      network: Made with `QuantLayers`.
      variables: Its `params`, `batch_stats` and `ranges`.
      x: Input of any values; only its shape matters, and one image suffices.

    Raises:
      TypeError: The network is not made with `QuantLayers`.
      UserError: Weights are not finite, or ranges were never observed or are not
        finite.
    """
    layers = network.layers
    if not isinstance(layers, QuantLayers):
        raise TypeError(
            f"only a network of QuantLayers has integers, got one of {layers!r}"
        )
    integers = flatten_dict(_sown_integers(network, variables, x))
    bad = [
        "/".join(path[:-1])
        for path, leaf in integers.items()
        if path[-1] == "scale" and not np.all(np.isfinite(np.asarray(leaf)))
    ]
    if bad:
        raise UserError(
            f"no finite scale at {', '.join(bad)}: weights hold an infinity or NaN, or "
            "the range of an activation was never observed; observe ranges first"
        )
    kept = {k: v for k, v in variables.items() if k not in ("params", "ranges")}
    params = flatten_dict(variables["params"])
    variables = kept | {
        "params": unflatten_dict(
            {k: v for k, v in params.items() if k not in integers}
        ),
        "integers": unflatten_dict(integers),
    }
    return network.clone(layers=integer_layers(layers)), variables


def _sown_integers(network: nn.Module, variables: PyTree, x: jax.Array) -> PyTree:
    """Returns what the modules sow in `integers`, without the rest of the pass."""

    @jax.jit
    def collect(variables: PyTree, x: jax.Array) -> PyTree:
        return network.apply(variables, x, mutable=["integers"])[1]

    return collect(variables, x).get("integers", {})
