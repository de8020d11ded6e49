"""What a pickle written by `torch.save` describes, found without executing it.

A pickle is a program for a stack machine, and the usual machine imports and calls
whatever the program names. This one only moves data: strings, numbers, lists, tuples
and dictionaries stay themselves, an allow-listed name becomes a `Global`, and calling
one builds a plain description (`acq.torch_globals`). No module is imported, no
attribute set and no class made, so that a file from anywhere can be read; any other
name is refused.

The opcodes are decoded by the standard library's `pickletools`, which executes nothing
either. Work is bounded by the file's size: nothing is copied or compared deeply.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from acq.weights.torch_globals import (
    Opaque,
    UnreadablePickleError,
    call,
    find_global,
    find_storage,
    set_items,
)


@runtime_checkable
class ByteSource(Protocol):
    """A binary file, open for reading."""

    def read(self, count: int, /) -> bytes:
        """Up to `count` bytes."""
        ...

    def readline(self) -> bytes:
        """The bytes up to the next line feed."""
        ...

    def tell(self) -> int:
        """Where the next byte is."""
        ...


class Unpickled(NamedTuple):
    """What a pickle describes.

    Attributes:
      value: The object.
      dtypes: Type of the numbers in each storage it refers to, by the storage's key.
    """

    value: Any
    dtypes: Mapping[str, str]


def unpickle(source: ByteSource) -> Unpickled:
    """Returns what the pickle at `source` describes; `source` then stands behind it.

    Raises:
      UnreadablePickleError: It is damaged, or names what weights do not need.
    """
    machine = _Machine()
    try:
        # A name with a backslash, which only a warning tells: none of ours has one.
        with warnings.catch_warnings(action="error", category=DeprecationWarning):
            # pyrefly: ignore[bad-argument-type]  # it needs no more of a file than this
            for opcode, argument, _ in pickletools.genops(source):
                machine.step(opcode.name, argument)
    except UnreadablePickleError:
        raise
    except (
        *(ValueError, TypeError, LookupError, OverflowError),
        DeprecationWarning,
    ) as error:
        raise UnreadablePickleError(f"damaged: {error}") from error
    return machine.result()


class _Machine:
    """Data in, descriptions out."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._dtypes: dict[str, str] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carries out one opcode."""
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise UnreadablePickleError(f"weights do not need the opcode {name}")

    def result(self) -> Unpickled:
        """The one object left at the end."""
        if len(self._stack) != 1 or self._marks:
            raise UnreadablePickleError("damaged: it does not end with one object")
        return Unpickled(self._stack[0], self._dtypes)

    def _pop(self, _: Any = None) -> Any:
        # Never below a mark: what is there belongs to another object.
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise UnreadablePickleError("damaged: its stack runs empty")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(top := self._pop())
        return top

    def _mark(self, _: None) -> None:
        self._marks.append(len(self._stack))

    def _pop_to_mark(self, _: Any = None) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _dup(self, _: None) -> None:
        self._stack.append(self._top())

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._top()

    def _tuple(self, _: None) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _short_tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _list(self, _: None) -> None:
        self._stack.append(self._pop_to_mark())

    def _append(self, _: None) -> None:
        self._extend([self._pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(target := self._top(), list):
            raise UnreadablePickleError("damaged: it appends to what is no list")
        target.extend(items)

    def _dict(self, _: None) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._update(items)

    def _set_item(self, _: None) -> None:
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def _set_items(self, _: None) -> None:
        self._update(self._pop_to_mark())

    def _update(self, items: list[Any]) -> None:
        set_items(self._top(), zip(items[::2], items[1::2], strict=True))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(find_global(module, name))

    def _stack_global(self, _: None) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise UnreadablePickleError("damaged: a global's name is no text")
        self._stack.append(find_global(module, name))

    def _reduce(self, _: None) -> None:
        arguments, called = self._pop(), self._pop()
        self._stack.append(call(called, arguments))

    def _build(self, _: None) -> None:
        # State of an OrderedDict (its `_metadata`) or of a NumPy type: not weights.
        self._pop()
        if not isinstance(self._top(), dict | Opaque):
            raise UnreadablePickleError("it sets the state of what is no dict")

    def _persistent(self, _: None) -> None:
        storage = find_storage(self._pop())
        if self._dtypes.setdefault(storage.key, storage.dtype) != storage.dtype:
            raise UnreadablePickleError("damaged: a storage of two types of numbers")
        self._stack.append(storage)


_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_LITERALS = frozenset(
    {
        *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2"),
        *("FLOAT", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    }
)
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
_STEPS: Mapping[str, Callable[[_Machine, Any], Any]] = {
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_to_mark,
    "DUP": _Machine._dup,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._short_tuple(1),
    "TUPLE2": lambda machine, _: machine._short_tuple(2),
    "TUPLE3": lambda machine, _: machine._short_tuple(3),
    "LIST": _Machine._list,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "DICT": _Machine._dict,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
