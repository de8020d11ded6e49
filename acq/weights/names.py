"""A network's variables from the tensors of a file, whoever named them.

Tensors are those of PyTorch: convolution kernels OIHW, dense kernels (out, in), batch
normalisation as weight, bias, running_mean and running_var. Or they have our own names,
`params/conv1/kernel`, and are laid out as in Flax. A network of one's own, too, is read
from PyTorch names if its modules have the same ones.

A module that all of a file's tensors are in may be one that wraps the network:
PyTorch's DataParallel (`module.`), torch.compile, a Lightning module.

Every tensor is accounted for: one that is left over, missing or of another shape is
listed, and the file refused. Only `num_batches_tracked` is ignored: it counts training
steps.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from acq.weights.foreign_names import HEADS, NAMINGS, Naming
from acq.weights.statistics import check_statistics
from common.errors import UserError
from common.typing import PyTree

Tensors = Mapping[str, np.ndarray]
_Path = tuple[str, ...]
_SHOWN = 4
# Modules around a network that are looked into: more than anyone nests.
_MOST_WRAPPERS = 4

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Match:
    """Which tensor belongs where.

    Attributes:
      layout: 'torch' or 'flax'.
      naming: A key of `NAMINGS`; '' for names that are ours.
      names: Name in the file, by path.
      missing: Paths without a tensor.
      left_over: Names without a path.
    """

    layout: str
    naming: str
    names: Mapping[_Path, str]
    missing: tuple[_Path, ...]
    left_over: tuple[str, ...]


def to_variables(
    tensors: Tensors,
    like: PyTree,
    *,
    network: str,
    source: str,
    advise: Callable[[Tensors], list[str]] = lambda tensors: [],
) -> PyTree:
    """Returns variables of a network, float32 NumPy arrays.

    Args:
      tensors: By name, as `read_weights` gives them.
      like: The network's variables, arrays or shapes as `jax.eval_shape` gives them.
      network: Its name, for the message.
      source: Where the tensors come from, for the message.
      advise: Lines for the message on tensors that do not fit, named as inside the
        modules around them.

    Raises:
      UserError: They are of another network, or hold numbers that no trained network
        has.
    """
    shapes = _shapes(like)
    wanted = _without_counters(tensors)
    match = _best_match(wanted, shapes)
    found, misshapen = _found(wanted, shapes, match)
    if match.missing or match.left_over or misshapen:
        lines = [
            *_lines("missing", ["/".join(path) for path in match.missing]),
            *_lines("left over", sorted(match.left_over)),
            *_lines("of another shape", misshapen),
            *advise(innermost(wanted)),
        ]
        raise UserError(f"{source}: not the weights of {network}:\n" + "\n".join(lines))
    if strange := list(_strange({n: found[path] for path, n in match.names.items()})):
        raise UserError(
            f"{source}: numbers that no trained network has:\n"
            + "\n".join(_lines("refused", strange))
            + "\nIt is damaged, or its training failed: give another file."
        )
    check_statistics(found, match.names, source=source)
    zeros = {p: np.zeros(s, np.float32) for p, s in shapes.items() if p not in found}
    return unflatten_dict(found | zeros)


def naming_of(tensors: Tensors, like: PyTree) -> str | None:
    """Returns how the tensors of a network are named.

    Args:
      tensors: As in `to_variables`.
      like: As there.

    Returns:
      A key of `NAMINGS`, '' for our own names; None if the tensors are not exactly the
      network's.
    """
    shapes, wanted = _shapes(like), _without_counters(tensors)
    match = _best_match(wanted, shapes)
    _, misshapen = _found(wanted, shapes, match)
    fits = not (match.missing or match.left_over or misshapen)
    return match.naming if fits else None


def innermost(tensors: Tensors) -> dict[str, np.ndarray]:
    """Returns tensors by their names without the modules that all of them are in."""
    *_, inner = _unwrapped(tensors)
    return {inner[name]: tensor for name, tensor in tensors.items()}


def _without_counters(tensors: Tensors) -> dict[str, np.ndarray]:
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


def _found(
    tensors: Tensors, shapes: Mapping[_Path, tuple[int, ...]], match: _Match
) -> tuple[dict[_Path, np.ndarray], list[str]]:
    """What a match finds, by path, and a line for each of another shape."""
    found, misshapen = {}, []
    for path, name in match.names.items():
        found[path] = _laid_out(tensors[name], path, shapes[path], match.layout)
        if found[path].shape != shapes[path]:
            here = _foreign(shapes[path], match.layout)
            misshapen.append(f"{name}: {tensors[name].shape}, here {here}")
    return found, misshapen


def _shapes(like: PyTree) -> dict[_Path, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(like)
    return {tuple(str(key.key) for key in path): leaf.shape for path, leaf in leaves}


def _best_match(tensors: Tensors, shapes: Mapping[_Path, Any]) -> _Match:
    """The naming that leaves the fewest tensors without a partner."""
    ours = {"/".join(path): path for path in shapes}
    matches = [_matched("flax", "", {n: n.replace(".", "/") for n in tensors}, ours)]
    head = next((head for head in HEADS if ("params", head, "kernel") in shapes), "")
    theirs = {_torch_name(path): path for path in shapes}
    namings = {"": Naming(rules=()), **NAMINGS}
    for inner, (which, naming) in itertools.product(
        _unwrapped(tensors), namings.items()
    ):
        rewritten = {n: naming.rewrite(inner[n], head) for n in tensors}
        keys = {n: name.replace(".", "_") for n, name in rewritten.items()}
        match = _matched("torch", which, keys, theirs)
        if naming.lacks_biases:
            renamed = {n for n in tensors if rewritten[n] != inner[n]}
            match = _without_biases(match, tensors, renamed)
        matches.append(match)
    return min(matches, key=lambda match: len(match.missing) + len(match.left_over))


def _unwrapped(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Names as they are, and in each module that all of them are in, from outside."""
    inner = {name: name for name in names}
    yield inner
    for _ in range(_MOST_WRAPPERS):
        parts = {name: rest.partition(".") for name, rest in inner.items()}
        if len({first for first, _, _ in parts.values()}) != 1:
            return
        inner = {name: rest for name, (_, _, rest) in parts.items()}
        if not all(inner.values()):
            return
        yield inner


def _matched(
    layout: str, naming: str, keys: Mapping[str, str], paths: Mapping[str, _Path]
) -> _Match:
    """Matches names, by their keys, with paths by theirs."""
    names: dict[_Path, str] = {}
    left_over = []
    for name, key in keys.items():
        path = paths.get(key)
        if path is None or path in names:
            left_over.append(name)
        else:
            names[path] = name
    missing = tuple(path for path in paths.values() if path not in names)
    return _Match(
        layout=layout,
        naming=naming,
        names=names,
        missing=missing,
        left_over=tuple(left_over),
    )


def _without_biases(match: _Match, tensors: Tensors, renamed: set[str]) -> _Match:
    """The match, where a renamed convolution may lack its bias."""

    def may_lack(path: _Path) -> bool:
        kernel = match.names.get((*path[:-1], "kernel"))
        return path[-1] == "bias" and kernel in renamed and tensors[kernel].ndim == 4

    missing = tuple(path for path in match.missing if not may_lack(path))
    return dataclasses.replace(match, missing=missing)


def _torch_name(path: _Path) -> str:
    _, *modules, leaf = path
    return "_".join([*modules, _LEAVES.get(leaf, leaf)])


def _laid_out(
    tensor: np.ndarray, path: _Path, shape: tuple[int, ...], layout: str
) -> np.ndarray:
    """A tensor in Flax's layout, float32 if it is of floats."""
    if layout == "torch" and path[-1] == "kernel" and tensor.ndim >= 2:
        if tensor.ndim > len(shape) == 2:
            # A dense layer written as a convolution of all its input.
            tensor = tensor.reshape(len(tensor), -1)
        # (out, in, *kernel) -> (*kernel, in, out)
        tensor = tensor.transpose(*range(2, tensor.ndim), 1, 0)
    return np.ascontiguousarray(tensor)


def _foreign(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape that a kernel of ours has in the file."""
    if layout == "torch" and len(shape) >= 2:
        return (shape[-1], shape[-2], *shape[:-2])
    return shape


def _strange(tensors: Tensors) -> Iterator[str]:
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            yield f"{name} is of {tensor.dtype}, not floats"
        elif not np.all(np.isfinite(tensor)):
            yield f"{name} is not finite"
        elif re.search(r"(running_|/)var$", name) and np.any(tensor < 0):
            yield f"{name}, a variance, is below 0"


def _lines(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = len(items) - _SHOWN
    shown = [f"    {item}" for item in items[:_SHOWN]]
    return [
        f"  {what} ({len(items)}):",
        *shown,
        *([f"    and {more} more"] if more > 0 else []),
    ]
