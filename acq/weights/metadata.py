"""What is written beside tensors: which network they are of, and what it was fed.

Networks that differ only in what has no tensors (pools, strides) have the same files.
timm's resnetblur18 loads as resnet18; only words tell them apart:

    a hub's config.json     in the file's folder: `architecture`, and in
                            `pretrained_cfg` `mean` and `std` of images in [0, 1]
    safetensors metadata    `architecture`
    the file's name         of networks known to be mistaken for another

A file without such words says nothing, and nothing here can tell.
"""

import dataclasses
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIG = "config.json"
# timm's that have the tensors of a network of the zoo, by their names and shapes.
_MISTAKEN = re.compile(r"(?<![a-z0-9])(resnetaa50|resnetblur18|resnetblur50)(?!\d)")
_MOST_HEADER = 1 << 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """What one place says of a file of weights.

    Attributes:
      place: Where it stands, for messages.
      architecture: Of the network; '' for nothing said.
      mean: Of each channel of images in [0, 1]; () for nothing said.
      std: Likewise.
    """

    place: str
    architecture: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def statements(path: Path) -> Iterator[Statement]:
    """Yields what is said of a file of weights, place by place."""
    beside = path.parent / CONFIG
    found = _read_json(beside)
    # Of timm before 0.9 the values are at the top.
    inputs = found.get("pretrained_cfg", found)
    inputs = inputs if isinstance(inputs, dict) else {}
    yield Statement(
        place=str(beside),
        architecture=_text(found.get("architecture")),
        mean=_numbers(inputs.get("mean")),
        std=_numbers(inputs.get("std")),
    )
    metadata = _safetensors_header(path).get("__metadata__", {})
    if isinstance(metadata, dict):
        yield Statement(
            place=f"the metadata of {path}",
            architecture=_text(metadata.get("architecture")),
        )
    if match := _MISTAKEN.search(path.stem.lower()):
        yield Statement(place=f"the name of {path}", architecture=match[1])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        # No config.json, or one of something else.
        return {}
    return found if isinstance(found, dict) else {}


def _safetensors_header(path: Path) -> dict[str, Any]:
    """The header of a file of safetensors; {} for another or damaged one."""
    with path.open("rb") as file:
        head = file.read(9)
        if len(head) < 9 or head[8:] != b"{":
            return {}
        (length,) = struct.unpack("<Q", head[:8])
        text = head[8:] + file.read(min(length, _MOST_HEADER) - 1)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        # Damaged: its reader says so.
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _numbers(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list):
        return ()
    if not all(type(value) in (int, float) for value in values):
        return ()
    return tuple(float(value) for value in values)
