"""The operations of a network, layer by layer, from a trace with shapes only.

Every layer becomes one step. What lies between layers is plain JAX and becomes one step
for each primitive (`common.onnx.walk`). So no network needs code of its own here.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from acq.classifier import Record
from acq.kernels.grid import Grid
from acq.layers.bits import own_grid
from acq.layers.float import Activation, BatchNorm, Conv, Dense
from acq.layers.integer import IntegerActivation
from acq.layers.operations import ActivationKind, Padding
from common.onnx.walk import BATCH, Step, Walk, needed
from common.typing import PyTree


class ConvLayer(NamedTuple):
    """A convolution: its path and attributes, see `acq.layers.float.Conv`."""

    name: str
    strides: int
    padding: Padding
    groups: int


class DenseLayer(NamedTuple):
    """A dense layer: its path."""

    name: str


class NormLayer(NamedTuple):
    """A batch normalisation: its path and epsilon."""

    name: str
    epsilon: float


class ActivationLayer(NamedTuple):
    """An activation: its path, its kind, and its grid; None leaves its output float."""

    name: str
    kind: ActivationKind
    grid: Grid | None


Layer = ConvLayer | DenseLayer | NormLayer | ActivationLayer


class Trace(NamedTuple):
    """The steps that the logits need, in order.

    Attributes:
      steps: in an order in which every step follows those that it needs.
      images: number of the network's input, images in [0, 1].
      logits: number of the network's first result.
    """

    steps: tuple[Step, ...]
    images: int
    logits: int


_layer = core.Primitive("layer")


@_layer.def_abstract_eval
def _shape_of_layer(x: Any, *, layer: Layer, shape: tuple[int, ...]) -> Any:
    return x.update(shape=shape)


def trace_network(network: nn.Module, variables: PyTree, record: Record) -> Trace:
    """Returns the steps from images in [0, 1] to logits.

    Args:
      network: made with float or integer layers.
      variables: its variables, or their shapes.
      record: of the classifier; its normalisation is part of the steps.
    """

    def logits(variables: PyTree, images: jax.Array) -> jax.Array:
        with nn.intercept_methods(_as_one_step):
            x = record.normalisation.normalise(images)
            return network.apply(variables, x)[0]

    images = jax.ShapeDtypeStruct(record.image_shape(BATCH), jnp.float32)
    closed = jax.make_jaxpr(logits)(variables, images)
    walk = Walk()
    # The variables are in layers, whose steps name them.
    inputs = [walk.number() for _ in closed.jaxpr.invars]
    (result,) = walk.through(closed, inputs)
    assert isinstance(result, int), "the logits do not depend on the images"
    return Trace(needed(walk.steps, result), inputs[-1], result)


def _as_one_step(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Calls a layer for the shape of its result, and puts one step in its place."""
    module = context.module
    if context.method_name != "__call__" or not isinstance(
        module, Conv | Dense | BatchNorm | Activation
    ):
        return call(*args, **kwargs)
    x = args[0] if args else kwargs["x"]
    y = call(*args, **kwargs)
    return _layer.bind(x, layer=_described(module), shape=y.shape)


def _described(module: Conv | Dense | BatchNorm | Activation) -> Layer:
    name = "/".join(module.path)
    match module:
        case Conv():
            return ConvLayer(name, module.strides, module.padding, module.groups)
        case Dense():
            return DenseLayer(name)
        case BatchNorm():
            return NormLayer(name, module.epsilon)
        case IntegerActivation():
            grid = own_grid(module, module.grid, module.bits)
            return ActivationLayer(name, module.kind, grid)
        case _:
            return ActivationLayer(name, module.kind, None)
