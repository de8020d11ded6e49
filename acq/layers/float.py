"""Layers of classifiers: convolution, dense, batch normalisation, activation.

A network gets its modules from an injected *layers* object (`Layers`). So its float,
fake-quantized and integer forms are one file and share parameters. `FloatLayers` is the
float form. Parameters have the names and layouts of flax: kernels HWIO and (in, out).
Sizes and padding are those of PyTorch, or on demand of TensorFlow, so that published
weights fit.

    collection    leaves of a module
    params        conv, dense: kernel, bias; batch norm: scale, bias
    batch_stats   batch norm: mean, var (running)
    bn_inputs     batch norm: mean, var (of this batch; if mutable)
    activations   activation: output (of this batch; if mutable)
    perturbations the network: features, added to its features if given
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Initializer
from jax import lax

from acq.layers.operations import (
    ActivationKind,
    Padding,
    activate,
    add_bias,
    batch_statistics,
    convolution,
    normalise,
)

# PyTorch's momentum 0.1: the share of the new batch in the running statistics.
_NEW_SHARE = 0.1


@runtime_checkable
class Layers(Protocol):
    """Makes the modules of a network. Hashable, because it is a network's attribute."""

    def conv(
        self,
        features: int,
        kernel_size: int,
        *,
        strides: int = 1,
        padding: Padding,
        groups: int = 1,
        use_bias: bool = False,
        name: str,
    ) -> Callable[[jax.Array], jax.Array]:
        """Convolution with a square kernel, zero-padded by `padding`."""
        ...

    def dense(self, features: int, *, name: str) -> Callable[[jax.Array], jax.Array]:
        """Affine map of (n, in) to (n, features)."""
        ...

    def batch_norm(
        self, *, epsilon: float = 1e-5, name: str
    ) -> Callable[[jax.Array, bool], jax.Array]:
        """Batch normalisation over all but the last axis; called with `train`."""
        ...

    def activation(
        self, kind: ActivationKind, *, name: str
    ) -> Callable[[jax.Array], jax.Array]:
        """Activation; 'identity' marks a tensor that an integer runtime quantizes."""
        ...


class Conv(nn.Module):
    """Convolution with a square kernel and explicit padding.

    Attributes:
      features: Output channels.
      kernel_size: Side of the kernel.
      strides: Step in both directions.
      padding: Rows and columns of zeros on every side, as in PyTorch, or ((top,
        bottom), (left, right)); `same_padding` gives TensorFlow's.
      groups: Number of channel groups; as many as input channels is depthwise.
      use_bias: Whether there is a bias.
    """

    features: int
    kernel_size: int
    strides: int = 1
    padding: Padding = 0
    groups: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features (n, h', w', features), h' = (h + zeros - k) // strides + 1."""
        kernel, bias = conv_params(self, x.shape[-1])
        return add_bias(
            convolution(x, kernel, self.strides, self.padding, self.groups), bias
        )

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """Returns the kernel to convolve with; quantized convolutions override it."""
        return self.param("kernel", init, shape)


class Dense(nn.Module):
    """Affine map of the last axis.

    Attributes:
      features: Output size.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs (n, features) of inputs (n, in)."""
        kernel, bias = dense_params(self, x.shape[-1])
        return add_bias(x @ kernel, bias)

    def make_kernel(self, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """Returns the kernel to multiply with; quantized dense layers override it."""
        return self.param("kernel", init, shape)


class Activation(nn.Module):
    """Activation: max(x, 0), min(max(x, 0), 6), or x itself.

    Attributes:
      kind: 'relu', 'relu6' or 'identity'.
    """

    kind: ActivationKind

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Values of the shape of `x`."""
        return sow_output(self, activate(x, self.kind))


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last.

        y = (x - mean) / sqrt(var + epsilon) * scale + bias

    With `train=False`, mean and var are the running statistics. With `train=True` they
    are the batch's (var is biased: divided by n). If `batch_stats` is mutable, then
    running <- 0.9 running + 0.1 batch, with the variance divided by n - 1.

    In both modes, if the collection `bn_inputs` is mutable, the module sows the batch's
    mean and biased variance of its *input* there as `mean` and `var`. They are
    differentiable, and the collection has the tree of `batch_stats`.

    Attributes:
      epsilon: Added to the variance.
      axis_name: Pmapped axis that shares the batch; None for one device.
    """

    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Values of the shape of `x`."""
        shape = (x.shape[-1],)
        scale = self.param("scale", initializers.ones_init(), shape)
        bias = self.param("bias", initializers.zeros_init(), shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, var = running_mean.value, running_var.value
        sown = self.is_mutable_collection("bn_inputs") and not self.is_initializing()
        if train or sown:
            batch_mean, batch_var = batch_statistics(x, self.axis_name)
            if sown:
                sow_latest(self, "bn_inputs", mean=batch_mean, var=batch_var)
            if train:
                mean, var = batch_mean, batch_var
                self._update(running_mean, running_var, x, mean, var)
        return normalise(x, mean, var, scale, bias, self.epsilon)

    def _update(self, running_mean, running_var, x, mean, var) -> None:
        if self.is_initializing() or not self.is_mutable_collection("batch_stats"):
            return
        count = x.size // x.shape[-1]
        if self.axis_name is not None:
            count *= lax.psum(1, self.axis_name)
        if count < 2:
            raise ValueError(
                f"{self.name}: running statistics need more than one value a channel, "
                f"got an input of shape {x.shape}: give more or larger images"
            )
        for running, new in (
            (running_mean, mean),
            (running_var, var * (count / (count - 1))),
        ):
            running.value = (1 - _NEW_SHARE) * running.value + _NEW_SHARE * new


@dataclasses.dataclass(frozen=True)
class FloatLayers:
    """Layers of a float network.

    Subclasses make other kernels by the first two attributes and `kernel_options`.

    Attributes:
      conv_type: Class of convolutions.
      dense_type: Class of dense layers.
      axis_name: Pmapped axis over which batch statistics are computed; None for one
        device.
    """

    conv_type: ClassVar[type[Conv]] = Conv
    dense_type: ClassVar[type[Dense]] = Dense
    axis_name: str | None = dataclasses.field(default=None, kw_only=True)

    def kernel_options(self) -> dict[str, Any]:
        """Returns more attributes of `conv_type` and `dense_type`."""
        return {}

    def conv(
        self,
        features: int,
        kernel_size: int,
        *,
        strides: int = 1,
        padding: Padding,
        groups: int = 1,
        use_bias: bool = False,
        name: str,
    ) -> nn.Module:
        """Returns a `conv_type`."""
        return self.conv_type(
            features,
            kernel_size,
            strides,
            padding,
            groups,
            use_bias,
            name=name,
            **self.kernel_options(),
        )

    def dense(self, features: int, *, name: str) -> nn.Module:
        """Returns a `dense_type`."""
        return self.dense_type(features, name=name, **self.kernel_options())

    def batch_norm(self, *, epsilon: float = 1e-5, name: str) -> nn.Module:
        """Returns a `BatchNorm` with statistics over `axis_name`."""
        return BatchNorm(epsilon, self.axis_name, name=name)

    def activation(self, kind: ActivationKind, *, name: str) -> nn.Module:
        """Returns a float `Activation`."""
        return Activation(kind, name=name)


def sow_latest(module: nn.Module, collection: str, **values: jax.Array) -> None:
    """Writes values to a collection, if it is mutable, and replaces older ones.

    Does nothing during initialisation, when all collections are mutable.
    """
    if module.is_initializing():
        return
    for name, value in values.items():
        module.sow(
            collection,
            name,
            value,
            reduce_fn=lambda _, new: new,
            init_fn=lambda: None,
        )


def sow_output(module: nn.Module, y: jax.Array) -> jax.Array:
    """Returns `y`; writes it to `activations` as `output`, if that is mutable."""
    if module.is_mutable_collection("activations") and not module.is_initializing():
        module.put_variable("activations", "output", y)
    return y


def perturbed(module: nn.Module, features: jax.Array) -> jax.Array:
    """Returns the features plus `features` of the collection `perturbations`.

    Grad-CAM needs the gradient of the logits with respect to the features, so it needs
    a network that calls this function. Without the collection the function changes
    nothing. If the collection is mutable, it writes zeros there, which shows that the
    network calls it.
    """
    if module.has_variable("perturbations", "features"):
        return features + module.get_variable("perturbations", "features")
    if module.is_mutable_collection("perturbations") and not module.is_initializing():
        module.put_variable("perturbations", "features", jnp.zeros_like(features))
    return features


def conv_params(module: Conv, channels: int) -> tuple[jax.Array, jax.Array | None]:
    """Returns kernel and bias of a convolution with `channels` input channels."""
    if channels % module.groups or module.features % module.groups:
        raise ValueError(
            f"{module.name}: {module.groups} groups must divide the channels in "
            f"({channels}) and out ({module.features})"
        )
    size = module.kernel_size
    shape = (size, size, channels // module.groups, module.features)
    # He's rule for the ReLU that follows, with the fan-out as in the papers' code.
    init = initializers.variance_scaling(2.0, "fan_out", "normal")
    kernel = module.make_kernel(init, shape)
    if not module.use_bias:
        return kernel, None
    return kernel, module.param("bias", initializers.zeros_init(), shape[-1:])


def dense_params(module: Dense, channels: int) -> tuple[jax.Array, jax.Array]:
    """Returns kernel and bias of an affine map with input size `channels`."""
    shape = (channels, module.features)
    kernel = module.make_kernel(initializers.lecun_normal(), shape)
    return kernel, module.param("bias", initializers.zeros_init(), shape[-1:])
