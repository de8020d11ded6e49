"""Layers whose kernels and activations are rounded to few bits, simulated in floats.

`QuantLayers` in the place of `FloatLayers` makes a network's student: the same file,
the same parameters, and a range for every activation. As GDFQ has it, every convolution
and dense layer is quantized, the first and the last too:

    kernels      per output channel, from the least to the greatest weight, anew in each
                 pass from the float kernel; biases stay float
    activations  "relu" and "relu6": their output, per tensor
    others       "identity", what GDFQ leaves float and integer runtimes need quantized;
                 per tensor, or not at all

Single layers may have bits of their own (`acq/layers/bits.py`).

    collection   leaves of a module
    ranges       quantized activation: low, high; float32 scalars
    observed     the same tree: this batch's least and greatest value; where mutable
    integers     see `acq/layers/integer.py`; where mutable

A pass reads `ranges` and never changes them: averaging, freezing or learning them is
the trainer's, on two pytrees of the same structure (`average_ranges`). Before the first
observation both ends are NaN. In a pass that observes, such a range is replaced by the
batch's own, as GDFQ does in its first step; in any other pass it makes every value NaN.
With a "learned" gradient, `ranges` are differentiated like parameters.
"""

import dataclasses
import math

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
    BatchNorm,
    Conv,
    Dense,
    shown,
    sow_latest,
)
from acq.layers.operations import ActivationKind, activate
from common.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """How values are rounded.

    Attributes:
      grid: To which integers.
      gradient: What flows back through the rounding, see `acq/kernels/fake_quant.py`.
    """

    grid: Grid
    gradient: Gradient = "identity"


@dataclasses.dataclass(frozen=True)
class QuantLayers:
    """Layers of a fake-quantized network.

    Attributes:
      kernels: Of convolutions and dense layers. Their ranges are the kernels' own and
        cannot be learned.
      activations: Of rectifiers' outputs.
      others: Of "identity" activations; None leaves them float.
      axis_name: Of the pmapped axis over which statistics and observed ranges are
        taken; None for one device's.
      bits: Of layers that have their own, by name; see `acq/layers/bits.py`.
    """

    kernels: Quantizer
    activations: Quantizer
    others: Quantizer | None = None
    axis_name: str | None = None
    bits: LayerBits = ()

    def __post_init__(self):
        """Raises ValueError for kernels with learned ranges."""
        if self.kernels.gradient == "learned":
            raise ValueError(
                "a kernel's range is that of its weights and cannot be learned: the "
                "gradient of kernels must be 'identity' or 'clipped', got 'learned'"
            )

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
        """A convolution with a quantized kernel."""
        return QuantConv(
            features,
            kernel_size,
            strides,
            padding,
            groups,
            use_bias,
            quantizer=self.kernels,
            bits=self.bits,
            name=name,
        )

    def dense(self, features: int, *, name: str) -> nn.Module:
        """An affine map with a quantized kernel."""
        return QuantDense(features, quantizer=self.kernels, bits=self.bits, name=name)

    def batch_norm(self, *, epsilon: float = 1e-5, name: str) -> nn.Module:
        """A float `BatchNorm`."""
        return BatchNorm(epsilon, self.axis_name, name=name)

    def activation(self, kind: ActivationKind, *, name: str) -> nn.Module:
        """An activation with a quantized output."""
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


class QuantConv(Conv, kw_only=True):
    """`Conv` with a kernel rounded per output channel.

    Attributes:
      quantizer: Of the kernel.
      bits: Of layers that have their own.
    """

    quantizer: Quantizer
    bits: LayerBits = ()

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """The float kernel, rounded."""
        return _rounded(self, self.param("kernel", init, shape))


class QuantDense(Dense, kw_only=True):
    """`Dense` with a kernel rounded per output.

    Attributes:
      quantizer: Of the kernel.
      bits: Of layers that have their own.
    """

    quantizer: Quantizer
    bits: LayerBits = ()

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """The float kernel, rounded."""
        return _rounded(self, self.param("kernel", init, shape))


class QuantActivation(Activation, kw_only=True):
    """`Activation` with an output rounded per tensor.

    Attributes:
      quantizer: Of the output.
      axis_name: Of the pmapped axis a batch is shared over; None for one device.
      bits: Of layers that have their own.
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
            seen_low, seen_high = observed_range(y, self.axis_name)
            if not self.is_initializing():
                sow_latest(self, "observed", low=seen_low, high=seen_high)
            low = jnp.where(jnp.isnan(low), seen_low, low)
            high = jnp.where(jnp.isnan(high), seen_high, high)
        grid = own_grid(self, self.quantizer.grid, self.bits)
        scale, zero_point = scale_and_zero_point(low, high, grid)
        stored = zero_point.astype(zero_point_dtype(grid))
        sow_latest(self, "integers", scale=scale, zero_point=stored)
        if self.quantizer.gradient == "learned":
            factor = learning_rate_factor(math.prod(y.shape[1:]), grid)
            low, high = (scale_gradient(end, factor) for end in (low, high))
            if self.kind != "identity":
                # Nothing lies below 0: a lower end that moved would waste codes.
                low = lax.stop_gradient(low)
        quantized = fake_quant(
            y, low, high, grid=grid, gradient=self.quantizer.gradient
        )
        return shown(self, quantized)


def kernel_range(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Least and greatest weight of each output channel, the last axis; no gradient."""
    kernel = lax.stop_gradient(kernel)
    axes = tuple(range(kernel.ndim - 1))
    return jnp.min(kernel, axes), jnp.max(kernel, axes)


def observed_range(
    values: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Least and greatest value of a batch, on all devices of an axis; no gradient."""
    values = lax.stop_gradient(values).astype(jnp.float32)
    low, high = jnp.min(values), jnp.max(values)
    if axis_name is None:
        return low, high
    return lax.pmin(low, axis_name), lax.pmax(high, axis_name)


def average_ranges(ranges: PyTree, observed: PyTree, decay: float) -> PyTree:
    """Returns decay * ranges + (1 - decay) * observed; the observed in place of NaN.

    A plain moving average, started at the first observation. It departs from GDFQ's
    code, which divides each average by 1 - decay^t and goes on from the quotient.

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
    """What a range's gradient is multiplied by to learn as fast as LSQ's step s.

    LSQ's factor on the gradient of s is 1 / sqrt(count qmax). A step's end is qmax
    times s: its gradient is 1 / qmax of that of s, and moving it by d moves s by
    d / qmax only, so the same step of gradient descent takes qmax^2 times that factor.

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
