"""Layers whose kernels and activations are rounded to few bits, simulated in floats.

`QuantLayers` instead of `FloatLayers` makes the student of a network: the same file,
the same parameters, and a range for every activation. As in GDFQ, every convolution and
dense layer is quantized, including the first and the last:

    kernels      per output channel, from the smallest to the largest weight; each pass
                 rounds the float kernel again; biases stay float
    activations  "relu" and "relu6": their output, per tensor
    others       "identity": tensors that GDFQ leaves float and integer runtimes need
                 quantized; per tensor, or not at all

Single layers may have other bits (`acq/layers/bits.py`).

    collection   leaves of a module
    ranges       quantized activation: low, high; float32 scalars
    observed     the same tree: smallest and largest value of this batch; if mutable
    integers     see `acq/layers/integer.py`; if mutable

A pass reads `ranges` and never changes them. The trainer averages, freezes or learns
them, with two pytrees of the same structure (`average_ranges`). Before the first
observation both ends are NaN. A pass that observes then uses the range of its batch, as
GDFQ does in its first step; any other pass gives NaN. With a "learned" gradient,
`ranges` are differentiated like parameters.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jax import lax

from acq.kernels.fake_quant import Gradient, fake_quant
from acq.kernels.grid import Grid, scale_and_zero_point
from acq.kernels.integer_codes import to_codes, zero_point_dtype
from acq.kernels.scale_gradient import scale_gradient
from acq.layers.bits import LayerBits, own_grid
from acq.layers.float import (
    Activation,
    Conv,
    Dense,
    FloatLayers,
    sow_latest,
    sow_output,
)
from acq.layers.operations import ActivationKind, activate
from common.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """How values are rounded.

    Attributes:
      grid: The integers.
      gradient: Gradient of the rounding, see `acq/kernels/fake_quant.py`.
    """

    grid: Grid
    gradient: Gradient = "identity"


class QuantConv(Conv, kw_only=True):
    """`Conv` with a kernel rounded per output channel.

    Attributes:
      quantizer: Of the kernel.
      bits: Of layers with other bits.
    """

    quantizer: Quantizer
    bits: LayerBits = ()

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """Returns the float kernel, rounded."""
        return _rounded(self, self.param("kernel", init, shape))


class QuantDense(Dense, kw_only=True):
    """`Dense` with a kernel rounded per output.

    Attributes:
      quantizer: Of the kernel.
      bits: Of layers with other bits.
    """

    quantizer: Quantizer
    bits: LayerBits = ()

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """Returns the float kernel, rounded."""
        return _rounded(self, self.param("kernel", init, shape))


class QuantActivation(Activation, kw_only=True):
    """`Activation` with an output rounded per tensor.

    Attributes:
      quantizer: Of the output.
      axis_name: Pmapped axis that shares the batch; None for one device.
      bits: Of layers with other bits.
    """

    quantizer: Quantizer
    axis_name: str | None = None
    bits: LayerBits = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Values of the shape of `x`."""
        y = activate(x, self.kind)
        low = self.variable("ranges", "low", jnp.float32, jnp.nan).value
        high = self.variable("ranges", "high", jnp.float32, jnp.nan).value
        if self.is_mutable_collection("observed"):
            batch_low, batch_high = observed_range(y, self.axis_name)
            sow_latest(self, "observed", low=batch_low, high=batch_high)
            low = jnp.where(jnp.isnan(low), batch_low, low)
            high = jnp.where(jnp.isnan(high), batch_high, high)
        grid = own_grid(self, self.quantizer.grid, self.bits)
        scale, zero_point = scale_and_zero_point(low, high, grid)
        stored = zero_point.astype(zero_point_dtype(grid))
        sow_latest(self, "integers", scale=scale, zero_point=stored)
        if self.quantizer.gradient == "learned":
            factor = learning_rate_factor(math.prod(y.shape[1:]), grid)
            low, high = (scale_gradient(end, factor) for end in (low, high))
            if self.kind != "identity":
                # No value is below 0: a lower end that moved would waste codes.
                low = lax.stop_gradient(low)
        quantized = fake_quant(
            y, low, high, grid=grid, gradient=self.quantizer.gradient
        )
        return sow_output(self, quantized)


@dataclasses.dataclass(frozen=True)
class QuantLayers(FloatLayers):
    """Layers of a fake-quantized network.

    Attributes:
      kernels: Of convolutions and dense layers. Each range is that of the kernel and
        cannot be learned.
      activations: Of the outputs of rectifiers.
      others: Of "identity" activations; None leaves them float.
      bits: Of layers with other bits, by name; see `acq/layers/bits.py`.
      axis_name: Pmapped axis over which statistics and ranges are observed; None for
        one device.
    """

    conv_type: ClassVar[type[Conv]] = QuantConv
    dense_type: ClassVar[type[Dense]] = QuantDense
    kernels: Quantizer
    activations: Quantizer
    others: Quantizer | None = None
    bits: LayerBits = ()

    def __post_init__(self):
        """Raises ValueError for kernels with learned ranges."""
        if self.kernels.gradient == "learned":
            raise ValueError(
                "a kernel's range is that of its weights and cannot be learned: the "
                "gradient of kernels must be 'identity' or 'clipped', got 'learned'"
            )

    def kernel_options(self) -> dict[str, Any]:
        """Returns quantizer and bits of the kernels."""
        return {"quantizer": self.kernels, "bits": self.bits}

    def activation(self, kind: ActivationKind, *, name: str) -> nn.Module:
        """Returns an activation with a quantized output."""
        quantizer = self.others if kind == "identity" else self.activations
        if quantizer is None:
            return Activation(kind, name=name)
        return QuantActivation(
            kind,
            quantizer=quantizer,
            axis_name=self.axis_name,
            bits=self.bits,
            name=name,
        )


def kernel_range(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns smallest and largest weight of each channel (last axis); no gradient."""
    kernel = lax.stop_gradient(kernel)
    axes = tuple(range(kernel.ndim - 1))
    return jnp.min(kernel, axes), jnp.max(kernel, axes)


def observed_range(
    values: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Returns smallest and largest value of a batch on all devices; no gradient."""
    values = lax.stop_gradient(values).astype(jnp.float32)
    low, high = jnp.min(values), jnp.max(values)
    if axis_name is None:
        return low, high
    return lax.pmin(low, axis_name), lax.pmax(high, axis_name)


def average_ranges(ranges: PyTree, observed: PyTree, decay: float) -> PyTree:
    """Returns decay * ranges + (1 - decay) * observed; `observed` where ranges are NaN.

    This is a plain moving average that starts at the first observation. It departs from
    GDFQ's code, which divides each average by 1 - decay^t and continues with the
    quotient.

    Args:
      ranges: Collection `ranges`.
      observed: Collection `observed` of a pass.
      decay: In [0, 1].
    """
    return jax.tree.map(
        lambda old, new: jnp.where(
            jnp.isnan(old), new, decay * old + (1 - decay) * new
        ),
        ranges,
        observed,
    )


def learning_rate_factor(count: int, grid: Grid) -> float:
    """Returns the factor on a range's gradient so that it learns as fast as LSQ's s.

    LSQ's factor on the gradient of the step s is 1 / sqrt(count qmax). A range's end is
    qmax times s. Its gradient is 1 / qmax of that of s, and moving it by d moves s only
    by d / qmax. So the same step of gradient descent needs qmax^2 times LSQ's factor.

    Args:
      count: Values of an image that share the range.
      grid: Their integers.
    """
    return grid.qmax**2 / (count * grid.qmax) ** 0.5


def _rounded(module: QuantConv | QuantDense, kernel: jax.Array) -> jax.Array:
    grid = own_grid(module, module.quantizer.grid, module.bits)
    gradient = module.quantizer.gradient
    low, high = kernel_range(kernel)
    if module.is_mutable_collection("integers"):
        scale, zero_point = scale_and_zero_point(low, high, grid)
        codes, stored = to_codes(kernel, scale, zero_point, grid)
        sow_latest(module, "integers", kernel=codes, scale=scale, zero_point=stored)
    return fake_quant(kernel, low, high, grid=grid, gradient=gradient)
