"""Reads weights from files of `torch.save`, without torch and without running pickles.

There are two formats. Since PyTorch 1.6 a file is an uncompressed zip with one folder:

    NAME/data.pkl     the object; a tensor refers to a storage by key
    NAME/data/KEY     the numbers of a storage
    NAME/byteorder    'little' or 'big'; little if it is missing

Older files, and those with `_use_new_zipfile_serialization=False`, are five pickles and
numbers:

    magic number, protocol version, system (`little_endian`), the object, list of keys,
    then for each key in that order: count of numbers (int64), the numbers

Every offset and size is checked against the file before anything is read or allocated.
"""

import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from common.weights.state_dict import find_state_dict
from common.weights.torch_globals import TensorView, UnreadablePickleError
from common.weights.torch_pickle import unpickle

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
# Most numbers of all tensors per byte of the file: tensors may share storages.
_MOST_PER_BYTE = 4
_ENCRYPTED = 0x1

ByteOrder = Literal["<", ">"]
Numbers = Callable[[str], np.ndarray]


def read_zip(path: Path, key: str = "") -> dict[str, np.ndarray]:
    """Returns the tensors of a file in the format since PyTorch 1.6.

    Args:
      path: Of the file.
      key: Of the weights, as in `find_state_dict`.

    Raises:
      UnreadablePickleError: It is damaged, or does not hold only weights.
      zipfile.BadZipFile: The zip is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadablePickleError("a zip that torch.save did not write")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise UnreadablePickleError(
                "a TorchScript archive, which holds a program. Load it with "
                "torch.jit.load and save its state_dict()"
            )
        content = unpickle(io.BytesIO(_stored(archive, pickles[0])))
        entry = f"{folder}byteorder"
        order = _byte_order(entry not in names or _stored(archive, entry) == b"little")

        def numbers(storage: str) -> np.ndarray:
            dtype = _dtype(content.dtypes[storage], order)
            return np.frombuffer(_stored(archive, f"{folder}data/{storage}"), dtype)

        views = find_state_dict(content.value, key)
        return dict(_arrays(views, numbers, path.stat().st_size))


def read_legacy(path: Path, key: str = "") -> dict[str, np.ndarray]:
    """Returns the tensors of a file in the format before PyTorch 1.6.

    Args:
      path: Of the file.
      key: Of the weights, as in `find_state_dict`.

    Raises:
      UnreadablePickleError: It is damaged, or does not hold only weights.
    """
    with _Bounded(path) as source:
        if unpickle(source).value != MAGIC_NUMBER:
            raise UnreadablePickleError("a pickle, but not one that torch.save wrote")
        if unpickle(source).value != _PROTOCOL_VERSION:
            raise UnreadablePickleError("damaged: an unknown protocol version")
        system = unpickle(source).value
        is_little = not isinstance(system, dict) or system.get("little_endian", True)
        content = unpickle(source)
        places = _places(
            source, unpickle(source).value, content.dtypes, _byte_order(is_little)
        )

    def numbers(storage: str) -> np.ndarray:
        if storage not in places:
            raise UnreadablePickleError(
                f"damaged: the numbers of {storage} are missing"
            )
        start, count, dtype = places[storage]
        return np.fromfile(path, dtype, count, offset=start)

    views = find_state_dict(content.value, key)
    return dict(_arrays(views, numbers, path.stat().st_size))


class _Bounded(io.BufferedReader):
    """A file whose reads never allocate more bytes than it has."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    @property
    def left(self) -> int:
        """Number of bytes after the position."""
        return self._size - self.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.left if size is None else min(size, self.left))


def _places(
    source: _Bounded, keys: Any, dtypes: Mapping[str, str], order: ByteOrder
) -> dict[str, tuple[int, int, np.dtype]]:
    """Returns start, count and dtype of the numbers of each storage."""
    if not isinstance(keys, list):
        raise UnreadablePickleError("damaged: no list of storages")
    places = {}
    for key in keys:
        if not isinstance(key, str) or key not in dtypes:
            raise UnreadablePickleError("damaged: numbers that no tensor refers to")
        dtype = _dtype(dtypes[key], order)
        head = source.read(8)
        count = int.from_bytes(head, "little", signed=True)
        if len(head) < 8 or count < 0:
            raise UnreadablePickleError("truncated: it ends before its numbers")
        places[key] = (source.tell(), count, dtype)
        if count * dtype.itemsize > source.left:
            raise UnreadablePickleError("truncated: it ends inside its numbers")
        source.seek(count * dtype.itemsize, io.SEEK_CUR)
    return places


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
        raise UnreadablePickleError(
            f"its entry {name[:80]} is compressed or encrypted, and so not torch.save's"
        )
    return archive.read(entry)


def _arrays(
    views: Mapping[str, TensorView], numbers: Numbers, file_size: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and tensors; reads each storage once and does not keep it."""
    count = sum(math.prod(view.shape) for view in views.values())
    if count > _MOST_PER_BYTE * file_size:
        raise UnreadablePickleError(
            f"its tensors have {count} numbers, too many for {file_size} bytes"
        )
    by_key: dict[str, list[str]] = {}
    for name, view in views.items():
        by_key.setdefault(view.storage.key, []).append(name)
    left = file_size
    for key, names in by_key.items():
        storage = numbers(key)
        left -= storage.nbytes
        if left < 0:
            raise UnreadablePickleError("damaged: its storages overlap")
        for name in names:
            yield name, _array(name, views[name], storage)


def _array(name: str, view: TensorView, numbers: np.ndarray) -> np.ndarray:
    """Returns a copy of a tensor."""
    storage = view.storage
    steps = zip(view.shape, view.strides, strict=True)
    last = view.offset + sum((n - 1) * stride for n, stride in steps)
    is_empty = 0 in view.shape
    if storage.start + storage.count > numbers.size or (
        not is_empty and last >= storage.count
    ):
        raise UnreadablePickleError(
            f"damaged: {name[:80]} lies outside its storage of {numbers.size} numbers"
        )
    if is_empty:
        return np.zeros(view.shape, np.float32)
    found = np.lib.stride_tricks.as_strided(
        numbers[storage.start + view.offset :],
        view.shape,
        [stride * numbers.itemsize for stride in view.strides],
        writeable=False,
    )
    return np.ascontiguousarray(found).reshape(view.shape)


def _byte_order(is_little: bool) -> ByteOrder:
    return "<" if is_little else ">"


def _dtype(name: str, order: ByteOrder) -> np.dtype:
    if name == "bfloat16":
        if order == ">":
            raise UnreadablePickleError("bfloat16 of a big-endian machine")
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder(order)
