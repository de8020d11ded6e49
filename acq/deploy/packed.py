"""One safetensors file with the weights of b bits really in b bits.

    name                       content
    packed/LAYER/kernel        uint8, the codes of a kernel, minus the lowest code of
                               their output channel, b bits each
    packed/LAYER/lowest        int16, these lowest codes
    all other variables        as they are, by their path: params/bn1/scale

Codes follow each other in C order without gaps, each with its lowest bit first, as
`numpy.packbits(..., bitorder="little")` stores them. The last byte is filled with 0.

The file's metadata have one key, `acq`, so that equal networks give equal files. It
holds JSON: `format`; `sha256` of the unpacked variables, which
`common.checkpoint.hash_variables` defines; `packed`, {LAYER: {bits, shape, dtype}}; and
the network's `manifest`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from acq.export import QuantizedNetwork, about_network, described_network
from common.checkpoint import hash_variables
from common.errors import UserError
from common.files import replacing

FORMAT, _KEY = "packed-1", "acq"
_KERNEL, _START = "/kernel", "integers/"
_GIVE = (
    "Give a file of `save_packed` or of task export, such as "
    "export/model.packed.safetensors of a run."
)
# A multiple of 8, so that the codes of all blocks but the last fill whole bytes.
_BLOCK = 1 << 20


def pack(codes: UInt8[np.ndarray, "n"], bits: int) -> UInt8[np.ndarray, "m"]:
    """Returns codes below 2^bits in `bits` bits each, m = ceil(n bits / 8).

    Raises:
      ValueError: a code needs more bits.
    """
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"{int(codes.max())} does not fit into {bits} bits")
    blocks = [
        np.packbits(_as_bits(codes[i : i + _BLOCK])[:, :bits], bitorder="little")
        for i in range(0, len(codes), _BLOCK)
    ]
    return np.concatenate([np.zeros(0, np.uint8), *blocks])


def unpack(
    packed: UInt8[np.ndarray, "m"], bits: int, count: int
) -> UInt8[np.ndarray, "n"]:
    """Returns the `count` codes that `pack` packed."""
    size = _BLOCK * bits // 8
    blocks = []
    for i in range(0, len(packed), size):
        values = np.unpackbits(packed[i : i + size], bitorder="little")
        values = values[: len(values) // bits * bits].reshape(-1, bits)
        blocks.append(np.packbits(values, axis=1, bitorder="little")[:, 0])
    return np.concatenate([np.zeros(0, np.uint8), *blocks])[:count]


def _as_bits(codes: np.ndarray) -> np.ndarray:
    return np.unpackbits(codes[:, None], axis=1, bitorder="little")


def write_packed(small: QuantizedNetwork, path: Path) -> None:
    """Writes a quantized network as one file.

    Args:
      small: the network.
      path: of the file, which is replaced if it exists.
    """
    variables = jax.device_get(small.variables)
    arrays: dict[str, np.ndarray] = {}
    packed: dict[str, Any] = {}
    for name, leaf in flatten_dict(variables, sep="/").items():
        values = np.asarray(leaf)
        if not (name.startswith(_START) and name.endswith(_KERNEL)):
            arrays[name] = values
            continue
        layer = name.removeprefix(_START).removesuffix(_KERNEL)
        bits = _bits_of(small.manifest, layer)
        axes = tuple(range(values.ndim - 1))
        lowest = values.min(axes).astype(np.int16)
        above = (values.astype(np.int16) - lowest).astype(np.uint8)
        arrays[f"packed/{layer}/kernel"] = pack(above.ravel(), bits)
        arrays[f"packed/{layer}/lowest"] = lowest
        packed[layer] = {
            "bits": bits,
            "shape": list(values.shape),
            "dtype": values.dtype.name,
        }
    description = {
        "format": FORMAT,
        "sha256": hash_variables(variables),
        "packed": packed,
        "manifest": about_network(small.manifest),
    }
    content = save(
        {name: np.asarray(values, order="C") for name, values in arrays.items()},
        {_KEY: json.dumps(description)},
    )
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _bits_of(manifest: Mapping[str, Any], layer: str) -> int:
    own = manifest.get("layer_bits", {}).get("weights", {})
    return own.get(layer, manifest["quantizer"]["weight_bits"])


def load_packed(path: str | Path, network: nn.Module | None = None) -> QuantizedNetwork:
    """Returns the network of a packed file; its variables are bit for bit those packed.

    Args:
      path: of the file.
      network: the float network that was quantized; needed only if it cannot be
        imported by its name.

    Raises:
      UserError: the file is missing, damaged, or no packed network.
    """
    path = Path(path)
    description, arrays = _read(path)
    flat = {k: v for k, v in arrays.items() if not k.startswith("packed/")}
    for layer, form in description["packed"].items():
        flat[f"{_START}{layer}{_KERNEL}"] = _unpacked(arrays, layer, form)
    variables = unflatten_dict(flat, sep="/")
    found, stated = hash_variables(variables), description["sha256"]
    if found != stated:
        raise UserError(
            f"{path}: damaged: its arrays have SHA-256 {found[:12]}..., it says "
            f"{stated[:12]}... Copy it again from its source."
        )
    manifest = description["manifest"]
    integers, like, record = described_network(path, manifest, network)
    _refuse_other_arrays(path, flat, flatten_dict(like, sep="/"), record.name)
    return QuantizedNetwork(
        network=integers, variables=variables, record=record, manifest=manifest
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the description and the arrays of a packed file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file. {_GIVE}")
    try:
        with safe_open(path, "np") as file:
            description = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: not readable as safetensors ({error}). Copy it again from its "
            "source."
        ) from error
    if description.get("format") != FORMAT:
        raise UserError(
            f"{path}: no packed network of this software: format "
            f"{description.get('format')!r}, accepted: {FORMAT!r}. {_GIVE}"
        )
    return description, arrays


def _unpacked(
    arrays: Mapping[str, np.ndarray], layer: str, form: Mapping[str, Any]
) -> np.ndarray:
    """Returns the codes of a kernel."""
    shape = tuple(form["shape"])
    kernel, lowest = (arrays[f"packed/{layer}/{part}"] for part in ("kernel", "lowest"))
    above = unpack(kernel, form["bits"], int(np.prod(shape))).reshape(shape)
    return (above.astype(np.int16) + lowest).astype(form["dtype"])


def _refuse_other_arrays(
    path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], name: str
) -> None:
    """Raises UserError if arrays are not those of the network."""
    shapes, others = (
        {key: (tuple(leaf.shape), leaf.dtype.name) for key, leaf in leaves.items()}
        for leaves in (found, wanted)
    )
    for key in sorted(shapes.keys() | others.keys()):
        if shapes.get(key) != others.get(key):
            raise UserError(
                f"{path}: its arrays are not those of {name}, which it names: {key} is "
                f"{shapes.get(key, 'missing')}, the network has "
                f"{others.get(key, 'none')}. Give the network that was quantized as "
                "`network`."
            )
