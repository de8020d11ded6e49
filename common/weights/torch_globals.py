"""Describes the objects of the names in a pickle written by `torch.save`.

A file may only use the names in `CALLABLE`, `CLASSES`, `STORAGES` and `_TYPES`. None of
torch's code is called: `torch._utils._rebuild_tensor_v2`, for example, gives a
`TensorView`. Sizes are checked to be integers in range, but not yet against the file.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

_MAX_DIMS = 32
_MAX_ARGUMENTS = 64
_MAX_SIZE = 2**62

STORAGES: Mapping[str, str] = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
"""The dtype of each of torch's typed storages."""


class UnreadablePickleError(ValueError):
    """A pickle that is damaged or holds more than weights; the message says which."""


class Global(NamedTuple):
    """An allowed name."""

    name: str


class Opaque(NamedTuple):
    """A value that weights do not need, such as a NumPy scalar."""

    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Storage:
    """Consecutive numbers in another part of the file.

    Attributes:
      key: Name of the numbers in the file.
      dtype: Of the numbers, such as 'float32'.
      start: Index of the first number that belongs to the storage.
      count: How many numbers belong to it.
    """

    key: str
    dtype: str
    start: int
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorView:
    """A tensor: numbers of a storage, by offset and strides.

    Attributes:
      storage: Holds the numbers.
      offset: Of the first number, from the storage's start.
      shape: Of the tensor.
      strides: Distance of neighbours along each axis, in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def find_global(module: str, name: str) -> Global:
    """Returns an allowed global.

    Raises:
      UnreadablePickleError: It is not allowed; the message names it.
    """
    full = f"{module}.{name}"
    if not any(full in names for names in (CALLABLE, CLASSES, STORAGES, _TYPES)):
        raise UnreadablePickleError(f"it names the forbidden global {full[:200]}")
    return Global(full)


def call(called: Any, arguments: Any) -> Any:
    """Returns the description of the result of calling an allowed global.

    Raises:
      UnreadablePickleError: It cannot be called, or not with these arguments.
    """
    if not isinstance(called, Global) or not isinstance(arguments, tuple):
        raise UnreadablePickleError("damaged: it calls what is no global")
    if len(arguments) > _MAX_ARGUMENTS:
        raise UnreadablePickleError(f"damaged: {called.name} with too many arguments")
    if called.name not in CALLABLE:
        raise UnreadablePickleError(f"it calls {called.name}, which makes no data")
    return CALLABLE[called.name](*arguments)


def new_object(called: Any) -> Opaque:
    """Returns the description of an object of one of `CLASSES`; none is made.

    Raises:
      UnreadablePickleError: It is no such class.
    """
    if not isinstance(called, Global):
        raise UnreadablePickleError("damaged: it makes an object of what is no class")
    if called.name not in CLASSES:
        raise UnreadablePickleError(f"it makes an object of {called.name}, no data")
    return Opaque(called.name)


def find_storage(persistent_id: Any) -> Storage:
    """Returns the storage of ('storage', type, key, device, count[, view]).

    A view, which torch wrote until 2017, is (key, start, count) or None.

    Raises:
      UnreadablePickleError: The argument has another form.
    """
    found = persistent_id
    if not isinstance(found, tuple) or len(found) not in (5, 6):
        raise UnreadablePickleError("damaged: it refers to what is no storage")
    if found[0] != "storage":
        raise UnreadablePickleError("damaged: it refers to what is no storage")
    _, kind, key, _, count, *rest = found
    if not isinstance(kind, Global) or kind.name not in STORAGES:
        raise UnreadablePickleError("damaged: a storage of no known type")
    if not isinstance(key, str | int):
        raise UnreadablePickleError("damaged: a storage whose key is no text")
    start = 0
    if rest and rest[0] is not None:
        _, start, count = rest[0]
    start, count = _sizes((start, count))
    return Storage(key=str(key), dtype=STORAGES[kind.name], start=start, count=count)


def set_items(target: Any, items: Iterable[Any]) -> None:
    """Sets items of a dict: pairs of key and value.

    Raises:
      UnreadablePickleError: The target is not a dict, or a key is not a name.
    """
    if not isinstance(target, dict):
        raise UnreadablePickleError("damaged: it sets items of what is no dict")
    for key, value in items:
        # Hashing deeply nested tuples could take forever.
        if not isinstance(key, str | int):
            raise UnreadablePickleError(
                f"a key is neither a text nor a number, but a {type(key).__name__}"
            )
        target[key] = value


def _ordered_dict(items: Any = ()) -> dict[str | int, Any]:
    target: dict[str | int, Any] = {}
    set_items(target, items)
    return target


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> TensorView:
    if not isinstance(storage, Storage):
        raise UnreadablePickleError("damaged: a tensor without a storage")
    shape, strides = _sizes(shape), _sizes(strides)
    if len(shape) != len(strides):
        raise UnreadablePickleError("damaged: a tensor with too many or few strides")
    (offset,) = _sizes((offset,))
    return TensorView(storage=storage, offset=offset, shape=shape, strides=strides)


def _rebuild_parameter(tensor: Any, *_: Any) -> TensorView:
    if not isinstance(tensor, TensorView):
        raise UnreadablePickleError("damaged: a parameter without a tensor")
    return tensor


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _MAX_DIMS:
        raise UnreadablePickleError("damaged: what should be sizes is none")
    if not all(type(v) is int and 0 <= v < _MAX_SIZE for v in values):
        raise UnreadablePickleError("a size is no whole number from 0 to 2^62")
    return tuple(values)


def _opaque(kind: str) -> Callable[..., Opaque]:
    return lambda *_: Opaque(kind)


CALLABLE: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.Size": _sizes,
    "torch.device": _opaque("device"),
    "numpy.dtype": _opaque("type of numbers"),
    "numpy.core.multiarray.scalar": _opaque("NumPy scalar"),
    "numpy._core.multiarray.scalar": _opaque("NumPy scalar"),
    "_codecs.encode": _opaque("bytes"),
    "collections.Counter": _opaque("counter"),
    **{
        f"{module}.{name}": _opaque("path")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
    },
}
"""The functions that a file may call, and descriptions of their results."""

CLASSES = frozenset({"argparse.Namespace"})
"""Classes whose objects a file may hold, such as the arguments of a training script."""

# Dtypes that a checkpoint may mention; no tensor needs them.
_TYPES = frozenset(f"torch.{name}" for name in STORAGES.values())
