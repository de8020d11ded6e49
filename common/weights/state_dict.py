"""Finds the network's weights among the tensors of a PyTorch checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.weights.torch_globals import TensorView, UnreadablePickleError

NESTS = (
    *("state_dict", "model_state_dict", "model", "net", "network"),
    *("weights", "params"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema"),
)
"""Keys under which training scripts put a network's weights, averaged ones last."""

_MOST_NAMED = 8
# Keys of training scripts that never hold a network's weights.
_TRAINING = frozenset(
    {
        *("optimizer", "optimizer_state_dict", "optim", "scaler", "amp_scaler"),
        *("scheduler", "scheduler_state_dict", "lr_scheduler"),
        "optimizer_states",  # PyTorch Lightning
    }
)


class AmbiguousWeightsError(UnreadablePickleError):
    """A checkpoint holds more tensors than the weights of one network.

    Attributes:
      choices: Text with the keys of dicts of tensors, one of which may be meant; '' if
        there are none.
    """

    def __init__(self, message: str, choices: Sequence[str]) -> None:
        """Keeps the message and the keys."""
        super().__init__(message)
        self.choices = _some(choices)


def find_state_dict(content: Any, key: str = "") -> dict[str, TensorView]:
    """Returns the weights in the content of a checkpoint.

    The weights are a dict of tensors, or such a dict under one of `NESTS`. An
    optimiser's state and values without tensors (numbers, texts, lists of them) are
    ignored. Anything else could be weights too, and is refused, unless `key` says which
    are meant.

    Args:
      content: Of the checkpoint.
      key: Of the dict of weights, one of `NESTS` or another; '' if there is one dict.

    Raises:
      AmbiguousWeightsError: There are weights of several networks, and no `key`.
      UnreadablePickleError: There are no weights, or none under `key`.
    """
    if not isinstance(content, dict):
        raise UnreadablePickleError(
            f"it holds a {_kind(content)}, not a dict of tensors"
        )
    choices = _dicts_of_tensors(content)
    if key:
        if key not in choices:
            there = f"but under {_some(choices)}" if choices else "under any key"
            raise UnreadablePickleError(f"it holds no weights under {key!r}, {there}")
        return _named(_weights(content[key]))
    nests = [key for key in NESTS if key in choices]
    if not nests:
        return _named(_weights(content, choices))
    if len(nests) > 1:
        raise AmbiguousWeightsError(
            f"it holds several networks' weights: {', '.join(nests)}", choices
        )
    beside = {key: v for key, v in content.items() if key != nests[0]}
    if extra := _weights(beside, choices):
        raise AmbiguousWeightsError(
            f"it holds weights under {nests[0]!r} and beside it: {_list(extra)}",
            choices,
        )
    return _named(_weights(content[nests[0]]))


def _dicts_of_tensors(content: Mapping[Any, Any]) -> list[str]:
    """Returns the keys under which a checkpoint has tensors, without an optimiser's."""
    return [
        key
        for key, value in content.items()
        if isinstance(key, str)
        and key not in _TRAINING
        and isinstance(value, dict)
        and _holds_tensors(value)
    ]


def _weights(
    content: Mapping[Any, Any], choices: Sequence[str] = ()
) -> dict[Any, TensorView]:
    """Returns the tensors of a dict; refuses other values that hold tensors.

    A tensor without axes is a plain value, except for a batch counter.

    Args:
      content: The dict.
      choices: For the error, keys of dicts of tensors.
    """
    weights, others = {}, {}
    for key, value in content.items():
        if isinstance(value, TensorView) and (value.shape or _is_counter(key)):
            weights[key] = value
        elif key not in _TRAINING and _holds_tensors(value):
            others[key] = value
    if others:
        raise AmbiguousWeightsError(
            "it holds tensors elsewhere than in a dict of them: " + _list(others),
            choices,
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


def _some(keys: Sequence[str]) -> str:
    more = len(keys) - _MOST_NAMED
    named = ", ".join(key[:60] for key in keys[:_MOST_NAMED])
    return named + (f" and {more} more" if more > 0 else "")


def _list(items: Mapping[Any, Any]) -> str:
    first = [f"{str(k)[:60]!r} (a {_kind(v)})" for k, v in list(items.items())[:3]]
    more = len(items) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
