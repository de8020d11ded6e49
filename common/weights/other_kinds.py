"""Describes files that users give as weights by mistake, and says what to do.

The first bytes show the format. None of these files is read; the description names the
weights inside it, beside it, or at its source.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HEAD = 512
"""How many first bytes of a file show its format."""

_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".th", ".npz"}
_SAVE = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
_UNPACK = "unpack it, and give the file of weights inside"


class _Kind(NamedTuple):
    """A format by its magic bytes.

    Attributes:
      offset: Position of the bytes.
      magic: The bytes.
      what: Description of the format.
      advice: What to do.
    """

    offset: int
    magic: bytes
    what: str
    advice: str


_KINDS = (
    _Kind(
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "run git lfs pull in its repository",
    ),
    _Kind(
        0,
        b"\x89HDF",
        "HDF5 (Keras)",
        "in Keras: np.savez('weights.npz', **{w.path: w.numpy() for w in "
        "model.weights}), its names changed to the network's",
    ),
    _Kind(
        0,
        b"GGUF",
        "GGUF, of quantized language models",
        f"give the float network's weights; in PyTorch: {_SAVE}",
    ),
    _Kind(
        4,
        b"TFL3",
        "TensorFlow Lite, a program that is already quantized or folded",
        "give the weights of the float network that it was made from",
    ),
    _Kind(
        0,
        b"\x93NUMPY",
        "one array of NumPy (.npy), without a name",
        "np.savez('weights.npz', **arrays) keeps arrays by name",
    ),
    _Kind(0, b"\x1f\x8b", "packed with gzip", _UNPACK),
    _Kind(0, b"BZh", "packed with bzip2", _UNPACK),
    _Kind(0, b"\xfd7zXZ\x00", "packed with xz", _UNPACK),
    _Kind(0, b"\x28\xb5\x2f\xfd", "packed with zstd", _UNPACK),
    _Kind(0, b"7z\xbc\xaf", "packed with 7-Zip", _UNPACK),
    _Kind(0, b"Rar!", "packed with RAR", _UNPACK),
    _Kind(257, b"ustar", "a tar archive", _UNPACK),
)
_WEB_PAGE = (
    "a web page, saved instead of the file: download it by its own link (on the "
    "Hugging Face hub 'resolve', on GitHub 'raw', instead of 'blob')"
)
_MSGPACK = (
    "msgpack (Flax): in Flax: np.savez('weights.npz', **flax.traverse_util.flatten_dict"
    "(flax.serialization.msgpack_restore(pathlib.Path(FILE).read_bytes()), sep='/'))"
)
_ONNX = (
    "ONNX, a program whose batch normalisation is often folded away: give the weights "
    f"it was made from; in PyTorch: {_SAVE}"
)
_MERGE = (
    'merge them: python -c "import glob, safetensors.numpy as s; s.save_file({k: v '
    "for f in glob.glob('*-of-*.safetensors') for k, v in s.load_file(f).items()}, "
    "'merged.safetensors')\""
)


def weights_in(folder: Path) -> list[str]:
    """Returns the names of files in a folder that have a suffix of weights."""
    return sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES)


def describe_file(head: bytes, path: Path) -> str:
    """Returns what kind of file this is, and what to do; for files without weights.

    Args:
      head: Its first `HEAD` bytes, or all of it.
      path: Of the file.
    """
    if not head:
        return "empty: copy or download it again"
    for kind in _KINDS:
        if head[kind.offset :].startswith(kind.magic):
            return f"{kind.what}: {kind.advice}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return _WEB_PAGE
    if text.startswith((b"{", b"[")):
        return _json_kind(path)
    if _is_msgpack(head):
        return _MSGPACK
    # Protocol buffers: the version, then the producer or the graph.
    if head[0] == 0x08 and head[2:3] in (b"\x12", b"\x1a", b"\x3a"):
        return _ONNX
    return f"it begins with {head[:8]!r}, which no known format does"


def _is_msgpack(head: bytes) -> bool:
    """Returns whether the bytes begin a map of 1 to 15 entries with a short key."""
    if len(head) < 3 or not 0x81 <= head[0] <= 0x8F or not 0xA1 <= head[1] <= 0xBF:
        return False
    key = head[2 : 2 + head[1] - 0xA0]
    return key.isascii() and key.decode("ascii").isidentifier()


def describe_zip(names: Sequence[str]) -> str:
    """Returns what kind of zip this is, and what to do; for zips without weights.

    Args:
      names: Of its entries.
    """
    first = ", ".join(name[:60] for name in names[:4]) or "nothing"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    what = "a zip that neither torch.save nor np.savez wrote; it holds"
    if "model.weights.h5" in names:
        (keras,) = (kind for kind in _KINDS if kind.magic == b"\x89HDF")
        return f"a model of Keras (a zip with {first}{more}): {keras.advice}"
    return f"{what} {first}{more}: {_UNPACK}"


def _json_kind(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    files = found.get("weight_map") if isinstance(found, dict) else None
    if isinstance(files, dict):
        shards = sorted({str(file) for file in files.values()})
        return (
            f"the index of weights in {len(shards)} files ({', '.join(shards[:3])}"
            f"{', ...' if len(shards) > 3 else ''}): in their folder, {_MERGE} and "
            "give merged.safetensors"
        )
    beside = weights_in(path.parent)
    advice = f"give {beside[0]}, beside it" if beside else "give the file of weights"
    return f"JSON, which describes a network and holds no weights: {advice}"
