"""The operations of a traced function, one step for each primitive of JAX."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from common.onnx.sizes import DependsOnSizeError, Differing, Side, merged

BATCH = 17
"""Images of the traced batch; a prime that no side of a tensor should have."""

# Primitives that only call another trace with the same values.
_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "custom_jvp_call"})
_CALLS |= {"custom_vjp_call", "checkpoint", "remat", "remat2"}

Given = int | np.ndarray | Differing
"""The number of a tensor, or a constant."""


class Step(NamedTuple):
    """One operation on tensors of a network.

    Attributes:
      kind: name of the primitive; 'layer' for a layer.
      inputs: numbers of tensors, or constants.
      output: number of the result.
      shape: of the result, NHWC for images; the first side of batches is `BATCH`.
      params: of the primitive; of several results also `result`, the number of this.
      layer: None for plain operations.
    """

    kind: str
    inputs: tuple[Given, ...]
    output: int
    shape: tuple[Side, ...]
    params: dict[str, Any]
    layer: Any = None


class Walk:
    """Numbers the tensors of a trace, and lists its operations as steps.

    Attributes:
      steps: so far, in an order in which every step follows those that it needs.
    """

    def __init__(self) -> None:
        """Starts without tensors."""
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
        if kind == "platform_index":
            # The form for platforms without one of their own has the plain operations.
            return [np.asarray(params["platforms"].index(None))]
        if kind == "cond" and isinstance(given[0], np.ndarray):
            return self.through(params["branches"][int(given[0])], given[1:])
        results: list[Any] = [var.aval for var in eqn.outvars]
        shapes = [tuple(result.shape) for result in results]
        if all(0 in shape for shape in shapes):
            return [np.zeros(result.shape, result.dtype) for result in results]
        if _is_constant(given, shapes):
            found = eqn.primitive.bind(*given, **params)
            found = found if eqn.primitive.multiple_results else [found]
            return [np.asarray(value) for value in found]
        layer = params.pop("layer", None) if kind == "layer" else None
        params = {key: _with_ints(value) for key, value in params.items()}
        numbers = [self.number() for _ in shapes]
        for result, (number, shape) in enumerate(zip(numbers, shapes, strict=True)):
            own = params | {"result": result} if len(shapes) > 1 else params
            self.steps.append(Step(kind, tuple(given), number, shape, own, layer))
        return numbers


def _with_ints(value: Any) -> Any:
    """Returns a parameter with Python's integers in place of NumPy's."""
    if type(value) is tuple:
        return tuple(map(_with_ints, value))
    return int(value) if isinstance(value, np.integer) else value


def needed(steps: Sequence[Step], result: int) -> tuple[Step, ...]:
    """Returns the steps that a result needs."""
    wanted, kept = {result}, []
    for step in reversed(steps):
        if step.output in wanted:
            kept.append(step)
            wanted |= {value for value in step.inputs if isinstance(value, int)}
    return tuple(reversed(kept))


def joined(walks: Sequence[Sequence[Step]]) -> tuple[Step, ...]:
    """Returns the steps of traces for images of several sizes as those of one.

    Raises:
      DependsOnSizeError: the traces differ in more than sizes.
    """
    if len({len(steps) for steps in walks}) > 1:
        raise DependsOnSizeError(
            f"it has {' or '.join(str(len(steps)) for steps in walks)} operations"
        )
    return tuple(_joined(same) for same in zip(*walks, strict=True))


def _joined(same: Sequence[Step]) -> Step:
    first = same[0]
    if len({(step.kind, step.output, *_numbers(step)) for step in same}) > 1:
        raise DependsOnSizeError(f"it has {first.kind} or {same[-1].kind}")
    return first._replace(
        inputs=merged([step.inputs for step in same]),
        shape=merged([step.shape for step in same]),
        params={key: merged([s.params[key] for s in same]) for key in first.params},
    )


def _numbers(step: Step) -> tuple[int | None, ...]:
    """Returns the numbers of a step's inputs; None for constants."""
    return tuple(value if isinstance(value, int) else None for value in step.inputs)


def _is_constant(
    given: Sequence[int | np.ndarray], shapes: Sequence[tuple[int, ...]]
) -> bool:
    """Whether results can be computed here: a whole batch of constants is not."""
    known = all(isinstance(value, np.ndarray) for value in given)
    return known and not any(BATCH in shape[:1] for shape in shapes)
