"""Checks the rules for networks, and describes violations."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from acq.layers.float import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
)
from common.errors import UserError
from common.own_code import place_of_call
from common.typing import PyTree

SEE = "See acq/models/README.md for what a network must be."
_MOST_NAMED = 5


class Made:
    """Records the modules that a network calls, by path, and their `train`."""

    def __init__(self, module: str = "") -> None:
        """Starts without modules.

        Args:
          module: Import path of the network's code, to name its lines.
        """
        self._module = module
        self.kernels: set[tuple[str, ...]] = set()
        self.activations = 0
        self._trained: dict[str, bool] = {}
        self._dropout: dict[str, str] = {}

    def note(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """Records and calls a module's method; for `nn.intercept_methods`."""
        module = context.module
        path = "/".join(module.path)
        if isinstance(module, Conv | Dense):
            self.kernels.add(module.path)
        self.activations += isinstance(module, Activation) and module.kind != "identity"
        if isinstance(module, nn.Dropout):
            place = place_of_call(self._module)
            self._dropout[path] = f"{path}, {place}" if place else path
        if isinstance(module, BatchNorm) and context.method_name == "__call__":
            train = args[1] if len(args) > 1 else kwargs.get("train", False)
            self._trained[path] = bool(train)
        return call(*args, **kwargs)

    def refuse_dropout(self, name: str) -> None:
        """Raises UserError if the network has dropout."""
        if self._dropout:
            where = some(list(self._dropout.values()))
            refuse(
                name,
                [
                    f"it has dropout ({where}): leave it out, it has no weights and "
                    "nothing here trains with it"
                ],
            )

    def norm_problems(self, *, train: bool) -> list[str]:
        """Returns the problems of a pass that should have had this `train`."""
        wrong = [path for path, given in self._trained.items() if given != train]
        if not wrong:
            return []
        return [
            f"with train={train}, {some(wrong)} got train={not train}: pass train on, "
            "layers.batch_norm(name=...)(x, train)"
        ]


def output_problems(outputs: Any, count: int, classes: int) -> list[str]:
    """Returns the problems of the shapes that a network returns."""
    expected = (
        f"it must return logits ({count}, {classes}) and features ({count}, h, w, c)"
    )
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        return [f"{expected}, got a {type(outputs).__name__}"]
    shapes = [getattr(output, "shape", ()) for output in outputs]
    is_right = (
        shapes[0] == (count, classes) and len(shapes[1]) == 4 and shapes[1][0] == count
    )
    return [] if is_right else [f"{expected}, got {shapes[0]} and {shapes[1]}"]


def variable_problems(variables: PyTree, made: Made) -> list[str]:
    """Returns the problems of a network's variables."""
    problems = []
    if not jax.tree.leaves(variables.get("batch_stats", {})):
        problems.append(
            "it has no batch normalisation, whose statistics replace the data"
        )
    if others := set(variables) - {"params", "batch_stats"}:
        problems.append(f"it has variables other than these: {', '.join(others)}")
    leaves = jax.tree_util.tree_leaves_with_path(variables.get("params", {}))
    paths = [tuple(key.key for key in path) for path, _ in leaves]
    foreign = [
        "/".join(path)
        for path in paths
        if path[-1] == "kernel" and path[:-1] not in made.kernels
    ]
    if foreign:
        problems.append(
            f"layers.conv or layers.dense did not make {', '.join(foreign[:3])}"
            + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        )
    if not made.kernels or not made.activations:
        problems.append("it has no convolution, or no activation, made by its layers")
    return problems


def refuse(name: str, problems: Sequence[str]) -> None:
    """Raises UserError with the problems of a network, if there are any."""
    if problems:
        raise UserError(
            f"{name} cannot be quantized:\n  " + "\n  ".join(problems) + f"\n{SEE}"
        )


def some(names: Sequence[str]) -> str:
    """Returns the first names and the number of others, as text."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
