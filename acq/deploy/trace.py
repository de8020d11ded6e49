"""The operations of a network, layer by layer, from a trace with shapes only.

Every layer becomes one step. What lies between layers is plain JAX and becomes one step
for each primitive. So no network needs code of its own here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from acq.classifier import Record
from acq.kernels.grid import Grid
from acq.layers.bits import own_grid
from acq.layers.float import Activation, BatchNorm, Conv, Dense
from acq.layers.integer import IntegerActivation
from acq.layers.operations import ActivationKind, Padding
from common.typing import PyTree

BATCH = 17
"""Images of the traced batch; a prime that no side of a tensor should have."""

# Primitives that only call another trace with the same values.
_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "custom_jvp_call"})
_CALLS |= {"custom_vjp_call", "checkpoint", "remat", "remat2"}


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


class Step(NamedTuple):
    """One operation on tensors of a network.

    Attributes:
      kind: name of the primitive; 'layer' for a layer.
      inputs: numbers of tensors, or constants.
      output: number of the result.
      shape: of the result, NHWC for images; the first side of batches is `BATCH`.
      params: of the primitive.
      layer: None for plain operations.
    """

    kind: str
    inputs: tuple[int | np.ndarray, ...]
    output: int
    shape: tuple[int, ...]
    params: dict[str, Any]
    layer: Layer | None = None


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
    walk = _Walk()
    # The variables are in layers, whose steps name them.
    inputs = [walk.number() for _ in closed.jaxpr.invars]
    (result,) = walk.through(closed, inputs)
    assert isinstance(result, int), "the logits do not depend on the images"
    return Trace(_needed(walk.steps, result), inputs[-1], result)


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


class _Walk:
    """Numbers the tensors of a trace, and lists its operations as steps."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._count = 0

    def number(self) -> int:
        """Returns the number of the next tensor."""
        self._count += 1
        return self._count - 1

    def through(
        self, closed: core.ClosedJaxpr, given: Sequence[int | np.ndarray]
    ) -> list[int | np.ndarray]:
        """Returns the results of a trace: numbers, or constants."""
        jaxpr = closed.jaxpr
        values: dict[Any, Any] = dict(zip(jaxpr.invars, given, strict=True))
        consts = map(np.asarray, closed.consts)
        values.update(zip(jaxpr.constvars, consts, strict=True))

        def value_of(atom: Any) -> int | np.ndarray:
            is_literal = isinstance(atom, core.Literal)
            return np.asarray(atom.val) if is_literal else values[atom]

        for eqn in jaxpr.eqns:
            results = self._results(eqn, [value_of(atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, results, strict=True))
        return [value_of(atom) for atom in jaxpr.outvars]

    def _results(
        self, eqn: core.JaxprEqn, given: list[int | np.ndarray]
    ) -> Sequence[int | np.ndarray]:
        kind, params = eqn.primitive.name, dict(eqn.params)
        if kind in _CALLS:
            keys = ("jaxpr", "call_jaxpr", "fun_jaxpr")
            inner = next(params[key] for key in keys if key in params)
            if not hasattr(inner, "consts"):
                inner = core.ClosedJaxpr(inner, ())
            return self.through(inner, given)
        results: list[Any] = [var.aval for var in eqn.outvars]
        shapes = [tuple(result.shape) for result in results]
        if _is_constant(given, shapes):
            found = eqn.primitive.bind(*given, **params)
            found = found if eqn.primitive.multiple_results else [found]
            return [np.asarray(value) for value in found]
        layer = params.pop("layer", None) if kind == "layer" else None
        numbers = [self.number() for _ in shapes]
        for number, shape in zip(numbers, shapes, strict=True):
            self.steps.append(Step(kind, tuple(given), number, shape, params, layer))
        return numbers


def _is_constant(
    given: Sequence[int | np.ndarray], shapes: Sequence[tuple[int, ...]]
) -> bool:
    """Whether results can be computed here: a whole batch of constants is not."""
    known = all(isinstance(value, np.ndarray) for value in given)
    return known and not any(BATCH in shape[:1] for shape in shapes)


def _needed(steps: Sequence[Step], result: int) -> tuple[Step, ...]:
    """Returns the steps that a result needs."""
    wanted, kept = {result}, []
    for step in reversed(steps):
        if step.output in wanted:
            kept.append(step)
            wanted |= {value for value in step.inputs if isinstance(value, int)}
    return tuple(reversed(kept))
