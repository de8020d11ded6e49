"""Finds the operations of a network between its layers, from a trace with shapes only.

Layers mark their inputs and outputs in the trace. Between two marks every value carries
the operations applied to it. An activation that `layers` did not make would stay float
in a quantized network, and the results would not show it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from acq.layers.float import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
)
from common.typing import PyTree

_IN, _OUT = "acq in ", "acq out "
# Nonlinear operations on outputs of layers. Pools, sums and products are allowed.
_BENDING = frozenset(
    {
        *("max", "min", "clamp", "abs", "sign", "floor", "ceil", "round"),
        *("exp", "exp2", "expm1", "log", "log1p", "logistic", "tanh", "sinh", "cosh"),
        *("erf", "erfc", "erf_inv", "sin", "cos", "tan", "atan", "asinh"),
    }
)
# Operations that only call another trace with the same values.
_CALLS = frozenset(
    {
        *("pjit", "jit", "closed_call", "core_call", "checkpoint", "remat", "remat2"),
        *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "scan"),
    }
)


class Flow(NamedTuple):
    """Operations between a network's layers.

    Attributes:
      bent: {convolution or dense layer: nonlinear operations before it that `layers`
        did not make}.
      without_norm: Convolutions without batch normalisation after them.
    """

    bent: dict[str, tuple[str, ...]]
    without_norm: tuple[str, ...]


class _Value(NamedTuple):
    """Properties of a value in the trace.

    Attributes:
      of_layers: Whether it comes from a layer.
      bent: Nonlinear operations since the last layer.
      convs: Convolutions whose output it is, with no layer since.
    """

    of_layers: bool = False
    bent: frozenset[str] = frozenset()
    convs: frozenset[str] = frozenset()


def trace_flow(network: nn.Module, variables: PyTree, x: jax.ShapeDtypeStruct) -> Flow:
    """Returns the operations of a network between its layers.

    Args:
      network: Made with `FloatLayers`.
      variables: Shapes of its variables.
      x: Shape of a batch of images.
    """

    def apply(variables: PyTree, x: jax.Array) -> Any:
        with nn.intercept_methods(_mark):
            return network.apply(variables, x)

    closed = jax.make_jaxpr(apply)(variables, x)
    walk = _Walk()
    walk.through(closed.jaxpr, [_Value()] * len(closed.jaxpr.invars))
    return Flow(
        {name: tuple(sorted(ops)) for name, ops in walk.inputs.items() if ops},
        tuple(name for name in walk.convs if name not in walk.normalised),
    )


def _mark(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Marks the input and output of a layer in the trace."""
    module = context.module
    is_rectifier = isinstance(module, Activation) and module.kind != "identity"
    if context.method_name != "__call__" or not (
        is_rectifier or isinstance(module, Conv | Dense | BatchNorm)
    ):
        return call(*args, **kwargs)
    kind = next(
        base.__name__
        for base in (Conv, Dense, BatchNorm, Activation)
        if isinstance(module, base)
    )
    name = f"{kind} {'/'.join(module.path)}"
    if args:
        args = (checkpoint_name(args[0], _IN + name), *args[1:])
    else:
        kwargs = {**kwargs, "x": checkpoint_name(kwargs["x"], _IN + name)}
    return checkpoint_name(call(*args, **kwargs), _OUT + name)


class _Walk:
    """Goes through a trace, operation by operation."""

    def __init__(self) -> None:
        self.inputs: dict[str, frozenset[str]] = {}
        self.convs: list[str] = []
        self.normalised: set[str] = set()

    def through(self, jaxpr: core.Jaxpr, given: Sequence[_Value]) -> list[_Value]:
        """Returns the properties of a trace's results."""
        values = dict(zip(jaxpr.invars, given, strict=True))

        def value_of(atom: Any) -> _Value:
            return _NONE if isinstance(atom, core.Literal) else values.get(atom, _NONE)

        for eqn in jaxpr.eqns:
            results = self._step(eqn, [value_of(atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, results, strict=True))
        return [value_of(atom) for atom in jaxpr.outvars]

    def _step(self, eqn: core.JaxprEqn, given: list[_Value]) -> list[_Value]:
        name = eqn.primitive.name
        joined = _join(given)
        if name == "name" and str(eqn.params["name"]).startswith((_IN, _OUT)):
            return [self._at_layer(str(eqn.params["name"]), joined)]
        if name in _CALLS:
            inner = next(
                getattr(value, "jaxpr", value)
                for key, value in eqn.params.items()
                if key in ("jaxpr", "call_jaxpr", "fun_jaxpr")
            )
            return self.through(inner, given)
        # A selection is nonlinear if its condition comes from a layer.
        chooses = name == "select_n" and given[0].of_layers
        if joined.of_layers and (name in _BENDING or chooses):
            joined = joined._replace(bent=joined.bent | {name})
        return [joined] * len(eqn.outvars)

    def _at_layer(self, mark: str, value: _Value) -> _Value:
        is_in = mark.startswith(_IN)
        kind, name = mark.removeprefix(_IN).removeprefix(_OUT).split(" ", 1)
        if is_in:
            if kind in ("Conv", "Dense"):
                self.inputs[name] = self.inputs.get(name, frozenset()) | value.bent
            if kind == "BatchNorm":
                self.normalised |= value.convs
            return value
        if kind != "Conv":
            return _Value(of_layers=True)
        if name not in self.convs:
            self.convs.append(name)
        return _Value(of_layers=True, convs=frozenset({name}))


_NONE = _Value()


def _join(values: Sequence[_Value]) -> _Value:
    return _Value(
        any(value.of_layers for value in values),
        frozenset().union(*(value.bent for value in values)),
        frozenset().union(*(value.convs for value in values)),
    )
