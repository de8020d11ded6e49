"""Reads the weights of the published FFM into our network.

`_MODULES` and `_PARTS` map our modules to those of the published code. A residual block
has parts; the other modules have none. Of a module, `kernel` and `scale` are the
published `weight`. Layouts, with o channels out and i channels in:

    layer             published         ours
    convolution       (o, i, h, w)      (h, w, i, o)
    depthwise         (c, 1, h, w)      (h, w, 1, c)
    1x1 convolution   (o, i, 1, 1)      (i, o)
    dense, of times   (o, i)            (i, o)
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from common.errors import UserError
from common.typing import PyTree
from common.weights.wrappers import unwrapped

_MODULES = {
    r"time1": "temb.dense.0",
    r"time2": "temb.dense.1",
    r"conv_in": "conv_in",
    r"down(\d+)": r"down.\1.block.0",
    r"halve(\d+)": r"down.\1.downsample.conv",
    r"middle0": "mid.block_1",
    r"middle1": "mid.block_2",
    r"up(\d+)_(\d+)": r"up.\1.block.\2",
    r"double(\d+)": r"up.\1.upsample.conv",
    r"norm_out": "norm_out",
    r"conv_out": "conv_out",
}
_PARTS = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time": "temb_proj",
    "norm2": "norm2",
    "layer2/high1": "conv2.high_mixer.conv1",
    "layer2/high2": "conv2.high_mixer.proj1",
    "layer2/low": "conv2.low_mixer.conv",
    "layer2/norm": "conv2.low_mixer.norm",
    "layer2/fuse": "conv2.conv_fuse",
    "layer2/spatial": "conv2.proj",
    "layer2/frequency/magnitude1": "conv2.freblock.processmag.0",
    "layer2/frequency/magnitude2": "conv2.freblock.processmag.2",
    "layer2/frequency/phase1": "conv2.freblock.processpha.0",
    "layer2/frequency/phase2": "conv2.freblock.processpha.2",
    "layer2/out": "conv2.finalproj",
    "shortcut": "nin_shortcut",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# Dense layers, of the time embedding; other (i, o) kernels are 1x1 convolutions.
_DENSE = re.compile(r"(^|\.)temb(_proj|\.dense\.\d)\.weight$")
_MOST_NAMED = 6

_Path = tuple[str, ...]
_Shape = tuple[int, ...]


def to_variables(
    tensors: Mapping[str, np.ndarray], like: PyTree, *, source: str
) -> PyTree:
    """Returns the variables of our FFM, float32 NumPy arrays.

    Every tensor is used exactly once, and every parameter is filled. Modules that only
    wrap the network do not count (`common.weights.wrappers`).

    Args:
      tensors: by published name, from `common.weights.files.read_weights`.
      like: the network's variables: arrays, or shapes from `jax.eval_shape`.
      source: the file, for messages.

    Raises:
      UserError: Tensors are missing, left over, of another shape, not floats, or not
        finite; the message lists them.
    """
    leaves: dict[_Path, Any] = flatten_dict(like["params"])
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    names = {path: published_name(path) for path in shapes}
    wanted = {n: published_shape(n, shapes[path]) for path, n in names.items()}
    found = _innermost(tensors, wanted)
    _refuse_others(found, wanted, source)
    values = {
        path: _laid_out(found[name], shapes[path]) for path, name in names.items()
    }
    return {"params": unflatten_dict(values)}


def published_name(path: _Path) -> str:
    """Returns the published name of our parameter, such as `conv_in.weight`.

    Args:
      path: of the parameter, such as ("conv_in", "kernel").

    Raises:
      ValueError: The published network has no such parameter.
    """
    module, *parts, leaf = path
    part = "/".join(parts)
    for pattern, replacement in _MODULES.items():
        match = re.fullmatch(pattern, module)
        if match and (not part or part in _PARTS):
            names = [match.expand(replacement), *([_PARTS[part]] if part else [])]
            return ".".join([*names, _LEAVES[leaf]])
    raise ValueError(f"the published FFM has no {'/'.join(path)}")


def published_shape(name: str, shape: _Shape) -> _Shape:
    """Returns the published shape of a parameter.

    Args:
      name: its published name.
      shape: of our parameter.
    """
    if len(shape) == 4:
        height, width, channels, features = shape
        return features, channels, height, width
    if len(shape) == 2:
        return shape[::-1] if _DENSE.search(name) else (*shape[::-1], 1, 1)
    return shape


def _innermost(
    tensors: Mapping[str, np.ndarray], wanted: Mapping[str, _Shape]
) -> dict[str, np.ndarray]:
    """Returns the tensors, named without modules that only wrap the network."""
    inner = min(
        unwrapped(tensors), key=lambda inner: len(set(inner.values()) ^ set(wanted))
    )
    return {inner[name]: tensor for name, tensor in tensors.items()}


def _refuse_others(
    found: Mapping[str, np.ndarray], wanted: Mapping[str, _Shape], source: str
) -> None:
    """Raises UserError unless the tensors are exactly the wanted ones."""
    both = [name for name in wanted if name in found]
    lines = [
        *_lines("missing", [f"{n} {wanted[n]}" for n in wanted if n not in found]),
        *_lines(
            "left over",
            [f"{name} {a.shape}" for name, a in found.items() if name not in wanted],
        ),
        *_lines(
            "of another shape",
            [
                f"{name} {found[name].shape}, here {wanted[name]}"
                for name in both
                if found[name].shape != wanted[name]
            ],
        ),
    ]
    if lines:
        raise UserError(
            f"{source}: not the weights of the published FFM in the size of "
            "config.model.width and config.model.multipliers:\n"
            + "\n".join(lines)
            + "\nGive the file of that network's state_dict(), or change these keys."
        )
    if invalid := [
        f"{name} ({found[name].dtype})"
        for name in both
        if found[name].dtype != np.float32 or not np.isfinite(found[name]).all()
    ]:
        raise UserError(
            f"{source}: holds numbers that no trained network has:\n"
            + "\n".join(_lines("not floats, or not finite", invalid))
            + "\nIt is damaged, or its training failed: give another file."
        )


def _lines(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = len(items) - _MOST_NAMED
    return [
        f"  {what} ({len(items)}):",
        *(f"    {item}" for item in items[:_MOST_NAMED]),
        *([f"    and {more} more"] if more > 0 else []),
    ]


def _laid_out(tensor: np.ndarray, shape: _Shape) -> np.ndarray:
    """Returns a tensor of the published shape in our layout."""
    if len(shape) == 4:
        tensor = tensor.transpose(2, 3, 1, 0)
    elif len(shape) == 2:
        tensor = tensor.reshape(shape[::-1]).T
    return np.ascontiguousarray(tensor)
