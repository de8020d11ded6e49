"""Reads weights by name from files of several formats.

The content shows the format, because suffixes do not (`.th`, `.pt` and `.bin` may be
any of them):

    zip           `torch.save` since PyTorch 1.6 (has a data.pkl), or NumPy's .npz
    safetensors   8 bytes of length, then '{'
    pickle        `torch.save` before PyTorch 1.6

No pickle is ever executed. A folder is an export of this software, which
`common.checkpoint` reads.
"""

import functools
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from common.errors import UserError
from common.weights import torch_files
from common.weights.other_kinds import HEAD, describe_file, describe_zip
from common.weights.state_dict import AmbiguousWeightsError
from common.weights.torch_globals import UnreadablePickleError

ACCEPTED = "safetensors, .npz, or what torch.save writes of a state_dict()"

_ALONE = (
    "Accepted: weights alone, as torch.save(model.state_dict(), FILE) or, of NumPy's "
    "arrays, np.savez(FILE, **arrays) writes them; nothing in the file was executed."
)
_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    **{f"I{8 * n}": np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"U{8 * n}": np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
    "BOOL": np.bool_,
}
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06")  # the second: an empty zip
_PICKLE = b"\x80"
_MOST_GROWTH = 64
_ALWAYS_ALLOWED = 1 << 26


def read_weights(
    path: Path, *, key: str = "", key_name: str = ""
) -> dict[str, np.ndarray]:
    """Returns the tensors in a file by name.

    Floats of any width become float32; other dtypes stay.

    Args:
      path: Of the file.
      key: Of the weights in a checkpoint of PyTorch that holds several; '' if it holds
        one network's.
      key_name: Config key that holds `key`, for messages; '' if there is none.

    Raises:
      UserError: The file does not exist, has no known format, is damaged, or does not
        hold weights, or holds none under `key`, or several and no `key` was given.
    """
    try:
        read = _reader(path, key, key_name)
        tensors = read(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}). Accepted: a file of "
            f"weights, {ACCEPTED}."
        ) from error
    except AmbiguousWeightsError as error:
        advice = (
            ""
            if not (key_name and error.choices)
            else (f"Say which: --config.{key_name}=KEY, with one of {error.choices}. ")
        )
        raise UserError(f"{path}: {error}. {advice}{_ALONE}") from error
    except UnreadablePickleError as error:
        raise UserError(f"{path}: {error}. {_ALONE}") from error
    except (
        *(safetensors.SafetensorError, zipfile.BadZipFile, struct.error, EOFError),
        *(zlib.error, lzma.LZMAError, OverflowError),
        # zipfile raises the last for encrypted entries and unknown compressions.
        *(ValueError, LookupError, RuntimeError),
    ) as error:
        raise UserError(
            f"{path}: damaged or incomplete ({str(error)[:200]}). Copy or download it "
            f"again. Accepted: {ACCEPTED}."
        ) from error
    return {name: _plain(tensor) for name, tensor in tensors.items()}


def _reader(
    path: Path, key: str, key_name: str
) -> Callable[[Path], Mapping[str, np.ndarray]]:
    read = _reader_of_format(path)
    if read in (torch_files.read_zip, torch_files.read_legacy):
        return functools.partial(read, key=key)
    if key:
        raise UserError(
            f"config.{key_name}: got {key!r}, accepted: '', because {path} is no "
            "checkpoint of torch.save, and holds the weights of one network"
        )
    return read


def _reader_of_format(path: Path) -> Callable[..., Mapping[str, np.ndarray]]:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(_ZIPS):
        return _zip_reader(path)
    # Before pickles, because the length may begin with their first byte.
    if head[8:9] == b"{":
        return _read_safetensors
    if head.startswith(_PICKLE):
        return torch_files.read_legacy
    raise _no_weights(path, describe_file(head, path))


def _zip_reader(path: Path) -> Callable[..., Mapping[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if names and all(name.endswith(".npy") for name in names):
        return _read_npz
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return torch_files.read_zip
    raise _no_weights(path, describe_zip(names))


def _no_weights(path: Path, what: str) -> UserError:
    return UserError(f"{path}: not a file of weights: {what}. Accepted: {ACCEPTED}.")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    tensors = {}
    for name, tensor in safetensors.deserialize(path.read_bytes()):
        if tensor["dtype"] not in _SAFETENSORS:
            raise ValueError(f"{name} is of type {tensor['dtype']}")
        numbers = np.frombuffer(tensor["data"], _SAFETENSORS[tensor["dtype"]])
        tensors[name] = numbers.reshape(tensor["shape"])
    return tensors


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    limit = max(_ALWAYS_ALLOWED, _MOST_GROWTH * path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes")
        return {
            entry.filename.removesuffix(".npy"): _read_npy(archive, entry)
            for entry in entries
        }


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Returns an array of numbers; checks its size before it allocates memory."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read_header(file)
        if dtype.hasobject or dtype.kind not in "fiub":
            raise ValueError(f"{entry.filename} holds {dtype}, not numbers")
        size = math.prod(shape) * dtype.itemsize
        content = file.read(size + 1) if size <= entry.file_size else b""
    if len(content) != size:
        raise ValueError(f"{entry.filename} is not as long as its shape {shape} says")
    order = "F" if is_fortran else "C"
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _plain(tensor: np.ndarray) -> np.ndarray:
    """Returns the numbers in native byte order and C order, with floats as float32."""
    is_float = tensor.dtype.kind == "f" or tensor.dtype == ml_dtypes.bfloat16
    dtype = np.dtype(np.float32) if is_float else tensor.dtype.newbyteorder("=")
    # A float64 too large for float32 becomes infinite; the caller refuses it by name.
    with np.errstate(over="ignore"):
        return np.array(tensor, dtype, order="C")
