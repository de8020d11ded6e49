"""Reads metadata of weights: the network's architecture, and its images' mean and std.

Networks that differ only in parts without tensors (pools, strides) have the same files.
timm's resnetblur18 loads as resnet18. Only metadata shows the difference:

    a hub's config.json     in the file's folder: `architecture`, and in
                            `pretrained_cfg` `mean` and `std` of images in [0, 1]
    safetensors metadata    `architecture`
    the file's name         for networks that are easily confused

Without metadata the network of a file stays unknown.
"""

import dataclasses
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIG = "config.json"
# timm's networks whose tensors have the names and shapes of a network of the zoo.
_MISTAKEN = re.compile(
    r"(?<![a-z0-9])(resnetaa50|resnetblur18|resnetblur50|efficientnet_lite0_ra)(?!\d)"
)
_MOST_HEADER = 1 << 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """Metadata of a file of weights from one source.

    Attributes:
      source: Where it is written, for messages.
      architecture: Of the network; '' if not stated.
      mean: Of each channel of images in [0, 1]; () if not stated.
      std: Of each channel; () if not stated.
    """

    source: str
    architecture: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def statements(path: Path) -> Iterator[Statement]:
    """Yields the statements about a file of weights, source by source."""
    beside = path.parent / CONFIG
    found = _read_json(beside)
    # In files of timm before 0.9 the values are at the top level.
    inputs = found.get("pretrained_cfg", found)
    inputs = inputs if isinstance(inputs, dict) else {}
    yield Statement(
        source=str(beside),
        architecture=_text(found.get("architecture")),
        mean=_numbers(inputs.get("mean")),
        std=_numbers(inputs.get("std")),
    )
    metadata = _safetensors_header(path).get("__metadata__", {})
    if isinstance(metadata, dict):
        yield Statement(
            source=f"the metadata of {path}",
            architecture=_text(metadata.get("architecture")),
        )
    if match := _MISTAKEN.search(path.stem.lower()):
        yield Statement(source=f"the name of {path}", architecture=match[1])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        # There is no config.json, or it has another content.
        return {}
    return found if isinstance(found, dict) else {}


def _safetensors_header(path: Path) -> dict[str, Any]:
    """Returns the header of a safetensors file; {} for other and damaged files."""
    with path.open("rb") as file:
        head = file.read(9)
        if len(head) < 9 or head[8:] != b"{":
            return {}
        (length,) = struct.unpack("<Q", head[:8])
        text = head[8:] + file.read(min(length, _MOST_HEADER) - 1)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        # Damaged: the reader of the weights raises an error.
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
