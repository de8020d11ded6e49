"""Reads the content of a pickle written by `torch.save`, without executing it.

A pickle is a program for a stack machine, and the usual machine imports and calls every
name in the program. This machine is Python's, without the harmful parts. An allowed
name becomes a `Global`, calling one makes a plain description (`torch_globals`), and
every other name or opcode is refused. No module is imported, no attribute is set and no
object of a class is made. So files from any source can be read.

The machine is `pickle._Unpickler`, in Python, not the faster one in C. The C machine
allocates as many remembered objects as a file claims, and hashes keys of any depth. A
few bytes can fill the memory, or hang or crash it. Here the size of the file bounds the
work: nothing is copied repeatedly or compared deeply.
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from common.weights.torch_globals import (
    Global,
    Opaque,
    Storage,
    UnreadablePickleError,
    call,
    find_global,
    find_storage,
    new_object,
    set_items,
)


class Unpickled(NamedTuple):
    """Content of a pickle.

    Attributes:
      value: The object.
      dtypes: Dtype of each storage that the object refers to, by key.
    """

    value: Any
    dtypes: Mapping[str, str]


def unpickle(source: io.BufferedIOBase) -> Unpickled:
    """Returns the content of the pickle at `source`, and moves `source` to its end.

    Raises:
      UnreadablePickleError: It is damaged, or uses names that weights do not need.
    """
    machine = _Unpickler(source)
    try:
        value = machine.load()
    except UnreadablePickleError:
        raise
    except (
        *(pickle.UnpicklingError, struct.error, EOFError, OverflowError),
        *(ValueError, TypeError, LookupError, AttributeError),
    ) as error:
        raise UnreadablePickleError(f"damaged: {error}") from error
    return Unpickled(value, machine.dtypes)


class _Allowed(dict[int, Callable[..., None]]):
    """The functions of the opcodes that weights need; refuses other opcodes."""

    def __missing__(self, code: int) -> Callable[..., None]:
        if code not in _NAMES:
            raise UnreadablePickleError(f"damaged: unknown opcode {code:#x}")
        raise UnreadablePickleError(f"weights do not need the opcode {_NAMES[code]}")


_USUAL: Mapping[int, Callable[..., None]] = pickle._Unpickler.dispatch
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_AS_IS = frozenset(
    {
        *("PROTO", "FRAME", "MARK", "POP", "POP_MARK", "DUP"),
        *("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
        *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "LONG4"),
        *("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT"),
        *("GLOBAL", "STACK_GLOBAL", "BINPERSID"),
    }
)


class _Unpickler(pickle._Unpickler):
    """Python's machine, restricted to descriptions and plain data."""

    # Attributes that type checkers do not know.
    stack: list[Any]
    metastack: list[list[Any]]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, source: io.BufferedIOBase) -> None:
        super().__init__(source, encoding="latin-1")
        self.dtypes: dict[str, str] = {}
        self._source = source
        self._copied = 0

    def find_class(self, module: str, name: str) -> Global:
        return find_global(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        storage = find_storage(pid)
        if self.dtypes.setdefault(storage.key, storage.dtype) != storage.dtype:
            raise UnreadablePickleError("damaged: a storage of two types of numbers")
        return storage

    def _reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.append(call(called, arguments))
        # Each item of a list that is copied once takes at least a byte of the file.
        self._copied += sum(len(a) for a in arguments if isinstance(a, list))
        if self._copied > self._source.tell():
            raise UnreadablePickleError("damaged: it copies a list again and again")

    def _new_object(self) -> None:
        del self.stack[-1]  # its arguments
        self.append(new_object(self.stack.pop()))

    def _build(self) -> None:
        # The state of an OrderedDict (`_metadata`), of a NumPy type or of a Namespace
        # is not weights.
        self.stack.pop()
        if not isinstance(self.stack[-1], dict | Opaque):
            raise UnreadablePickleError("it sets the state of what is no dict")

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def _set_item(self) -> None:
        self._update([self.stack.pop(-2), self.stack.pop()])

    def _set_items(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list[Any]) -> None:
        set_items(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def _stop(self) -> None:
        if len(self.stack) != 1 or self.metastack:
            raise UnreadablePickleError("damaged: it does not end with one object")
        _USUAL[pickle.STOP[0]](self)

    dispatch = _Allowed(
        {code: _USUAL[code] for code, name in _NAMES.items() if name in _AS_IS}
        | {
            pickle.REDUCE[0]: _reduce,
            pickle.NEWOBJ[0]: _new_object,
            pickle.BUILD[0]: _build,
            pickle.DICT[0]: _dict,
            pickle.SETITEM[0]: _set_item,
            pickle.SETITEMS[0]: _set_items,
            pickle.STOP[0]: _stop,
        }
    )
