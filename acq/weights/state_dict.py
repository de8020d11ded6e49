"""Which tensors of a PyTorch checkpoint are the network's weights."""

from collections.abc import Mapping
from typing import Any

from acq.weights.torch_globals import TensorView, UnreadablePickleError

NESTS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts put a network's weights, beside other things."""

# What training scripts put there that is never a network's weights, of any form.
_TRAINING = frozenset(
    {
        *("optimizer", "optimizer_state_dict", "optim", "scaler", "amp_scaler"),
        *("scheduler", "scheduler_state_dict", "lr_scheduler"),
        "optimizer_states",  # PyTorch Lightning
    }
)


def find_state_dict(content: Any) -> dict[str, TensorView]:
    """Returns the weights of what a checkpoint holds.

    That is a dict of tensors, or such a dict under one of `NESTS`. Beside the weights,
    an optimiser's state and whatever holds no tensors (numbers, texts, lists of them)
    are ignored; anything else could be weights too, and is refused.

    Raises:
      UnreadablePickleError: There are no weights, or more than one network's.
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
    """Returns the tensors of a dict; refuses containers that hold some.

    A tensor without axes is a plain value, save in a batch counter.
    """
    weights, strange = {}, {}
    for key, value in content.items():
        if isinstance(value, TensorView) and (value.shape or _is_counter(key)):
            weights[key] = value
        elif key not in _TRAINING and _holds_tensors(value):
            strange[key] = value
    if strange:
        raise UnreadablePickleError(
            "it holds tensors elsewhere than in a dict of them: " + _list(strange)
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
    """Whether a tensor with axes is in a value, however deep."""
    left, seen = [value], set()  # what is seen may hold itself
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
    shown = [f"{str(k)[:60]!r} (a {_kind(v)})" for k, v in list(items.items())[:3]]
    more = len(items) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
