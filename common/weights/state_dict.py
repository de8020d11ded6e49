"""Finds the network's weights among the tensors of a PyTorch checkpoint."""

from collections.abc import Mapping
from typing import Any

from common.weights.torch_globals import TensorView, UnreadablePickleError

NESTS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts put a network's weights."""

# Keys of training scripts that never hold a network's weights.
_TRAINING = frozenset(
    {
        *("optimizer", "optimizer_state_dict", "optim", "scaler", "amp_scaler"),
        *("scheduler", "scheduler_state_dict", "lr_scheduler"),
        "optimizer_states",  # PyTorch Lightning
    }
)


def find_state_dict(content: Any) -> dict[str, TensorView]:
    """Returns the weights in the content of a checkpoint.

    The weights are a dict of tensors, or such a dict under one of `NESTS`. An
    optimiser's state and values without tensors (numbers, texts, lists of them) are
    ignored. Anything else could be weights too, and is refused.

    Raises:
      UnreadablePickleError: There are no weights, or those of several networks.
    """
    if not isinstance(content, dict):
        raise UnreadablePickleError(
            f"it holds a {_kind(content)}, not a dict of tensors"
        )
    nests = [key for key in NESTS if isinstance(content.get(key), dict)]
    if not nests:
        return _named(_weights(content))
    if len(nests) > 1:
        raise UnreadablePickleError(
            f"it holds several networks' weights: {', '.join(nests)}"
        )
    beside = {key: v for key, v in content.items() if key != nests[0]}
    if extra := _weights(beside):
        raise UnreadablePickleError(
            f"it holds weights under {nests[0]!r} and beside it: {_list(extra)}"
        )
    return _named(_weights(content[nests[0]]))


def _weights(content: Mapping[Any, Any]) -> dict[Any, TensorView]:
    """Returns the tensors of a dict; refuses other values that hold tensors.

    A tensor without axes is a plain value, except for a batch counter.
    """
    weights, others = {}, {}
    for key, value in content.items():
        if isinstance(value, TensorView) and (value.shape or _is_counter(key)):
            weights[key] = value
        elif key not in _TRAINING and _holds_tensors(value):
            others[key] = value
    if others:
        raise UnreadablePickleError(
            "it holds tensors elsewhere than in a dict of them: " + _list(others)
        )
    return weights


def _named(weights: Mapping[Any, TensorView]) -> dict[str, TensorView]:
    if not weights:
        raise UnreadablePickleError("it holds no tensors")
    if not all(isinstance(name, str) for name in weights):
        raise UnreadablePickleError("it holds tensors without names")
    return dict(weights)


def _is_counter(key: Any) -> bool:
    return isinstance(key, str) and key.endswith("num_batches_tracked")


def _holds_tensors(value: Any) -> bool:
    """Returns whether a value holds a tensor with axes, at any depth."""
    left, seen = [value], set()  # a value may contain itself
    while left:
        item = left.pop()
        if isinstance(item, TensorView) and item.shape:
            return True
        if isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            left += item.values() if isinstance(item, dict) else item
    return False


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, TensorView) else type(value).__name__


def _list(items: Mapping[Any, Any]) -> str:
    first = [f"{str(k)[:60]!r} (a {_kind(v)})" for k, v in list(items.items())[:3]]
    more = len(items) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
