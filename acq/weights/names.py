"""Makes a network's variables from the tensors of a file, with several namings.

Tensors are those of PyTorch: convolution kernels OIHW, dense kernels (out, in), batch
normalisation as weight, bias, running_mean and running_var. Or they have our names,
`params/conv1/kernel`, and the layouts of Flax. The user's own network also loads from
PyTorch names, if its modules have the same names.

Modules that only wrap the network do not count (`common.weights.wrappers`).

Every tensor must fit. The error lists tensors that are left over, missing or of another
shape. Only `num_batches_tracked` is ignored: it counts training steps.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from acq.weights.foreign_names import HEADS, NAMINGS, Naming
from acq.weights.statistics import check_statistics
from common.errors import UserError
from common.typing import PyTree
from common.weights.wrappers import unwrapped

Tensors = Mapping[str, np.ndarray]
_Path = tuple[str, ...]
_MOST_NAMED = 4

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Match:
    """A match of a file's tensors with a network's variables.

    Attributes:
      layout: 'torch' or 'flax'.
      naming: A key of `NAMINGS`; '' for our names.
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
      tensors: By name, from `read_weights`.
      like: The network's variables: arrays, or shapes from `jax.eval_shape`.
      network: Its name, for the message.
      source: File of the tensors, for the message.
      advise: Returns more lines for the message, from tensors named without wrapping
        modules.

    Raises:
      UserError: The tensors are of another network, or hold numbers that no trained
        network has.
    """
    shapes = _shapes(like)
    used = _without_counters(tensors)
    match = _best_match(used, shapes)
    found, misshapen = _found(used, shapes, match)
    if match.missing or match.left_over or misshapen:
        lines = [
            *_lines("missing", ["/".join(path) for path in match.missing]),
            *_lines("left over", sorted(match.left_over)),
            *_lines("of another shape", misshapen),
            *advise(innermost(used)),
        ]
        raise UserError(f"{source}: not the weights of {network}:\n" + "\n".join(lines))
    by_name = {name: found[path] for path, name in match.names.items()}
    if invalid := list(_invalid(by_name)):
        raise UserError(
            f"{source}: numbers that no trained network has:\n"
            + "\n".join(_lines("refused", invalid))
            + "\nIt is damaged, or its training failed: give another file."
        )
    check_statistics(found, match.names, source=source)
    zeros = {p: np.zeros(s, np.float32) for p, s in shapes.items() if p not in found}
    return unflatten_dict(found | zeros)


def naming_of(tensors: Tensors, like: PyTree) -> str | None:
    """Returns the naming of a network's tensors.

    Args:
      tensors: As in `to_variables`.
      like: As in `to_variables`.

    Returns:
      A key of `NAMINGS`, or '' for our names; None if the tensors are not exactly the
      network's.
    """
    shapes, used = _shapes(like), _without_counters(tensors)
    match = _best_match(used, shapes)
    _, misshapen = _found(used, shapes, match)
    fits = not (match.missing or match.left_over or misshapen)
    return match.naming if fits else None


def innermost(tensors: Tensors) -> dict[str, np.ndarray]:
    """Returns the tensors, named without the modules that contain all of them."""
    *_, inner = unwrapped(tensors)
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
    """Returns the matched tensors by path, and a line for each with another shape."""
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
    """Returns the match that leaves the fewest tensors and paths over."""
    ours = {"/".join(path): path for path in shapes}
    matches = [_matched("flax", "", {n: n.replace(".", "/") for n in tensors}, ours)]
    head = next((head for head in HEADS if ("params", head, "kernel") in shapes), "")
    theirs = {_torch_name(path): path for path in shapes}
    namings = {"": Naming(rules=()), **NAMINGS}
    for inner, (which, naming) in itertools.product(
        unwrapped(tensors), namings.items()
    ):
        rewritten = {n: naming.rewrite(inner[n], head) for n in tensors}
        keys = {n: name.replace(".", "_") for n, name in rewritten.items()}
        match = _matched("torch", which, keys, theirs)
        if naming.lacks_biases:
            renamed = {n for n in tensors if rewritten[n] != inner[n]}
            match = _without_biases(match, tensors, renamed)
        matches.append(match)
    return min(matches, key=lambda match: len(match.missing) + len(match.left_over))


def _matched(
    layout: str, naming: str, keys: Mapping[str, str], paths: Mapping[str, _Path]
) -> _Match:
    """Returns the match of names with paths that have the same key."""
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
    """Returns the match without missing biases of renamed convolutions."""

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
    """Returns a tensor in the layout of Flax."""
    if layout == "torch" and path[-1] == "kernel" and tensor.ndim >= 2:
        if tensor.ndim > len(shape) == 2:
            # A dense layer stored as a convolution over its whole input.
            tensor = tensor.reshape(len(tensor), -1)
        # (out, in, *kernel) -> (*kernel, in, out)
        tensor = tensor.transpose(*range(2, tensor.ndim), 1, 0)
    return np.ascontiguousarray(tensor)


def _foreign(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Returns the shape of our kernel in the file."""
    if layout == "torch" and len(shape) >= 2:
        return (shape[-1], shape[-2], *shape[:-2])
    return shape


def _invalid(tensors: Tensors) -> Iterator[str]:
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
    more = len(items) - _MOST_NAMED
    return [
        f"  {what} ({len(items)}):",
        *(f"    {item}" for item in items[:_MOST_NAMED]),
        *([f"    and {more} more"] if more > 0 else []),
    ]
