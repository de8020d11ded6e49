"""Features of images for `distributions`: a network named 'package.module:function'.

    extractor = find_extractor("inception")
    features = extract_features(extractor, batches, WINDOWS["lung"])

An extractor is a function of (n, h, w) grey images that returns (n, d) numbers, the
same d for every batch. Images are uint8, black and white at the window's ends, as in an
8-bit PNG. With the attribute `takes = "unit"` they are float32 in [0, 1] instead, not
rounded:

    def chest_network(images):      # (n, h, w) float32
        ...
        return features             # (n, d)

    chest_network.takes = "unit"

A network's features say how images differ in what it was trained for. Inception and
CLIP have seen photographs: name a medical one too. The window decides what they see.

| name        | what                                                   | d    |
|-------------|--------------------------------------------------------|------|
| `inception` | Inception v3 of clean-fid, for FID and KID             | 2048 |
| `clip`      | CLIP ViT-B/32 of clean-fid, for CLIP-FID               | 512  |
"""

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

from common.errors import UserError
from common.own_code import OwnCode, import_own_module
from ipv2.measures.metrics import Window

Extractor: TypeAlias = Callable[[np.ndarray], Any]

EXTRACTORS: Mapping[str, str] = MappingProxyType(
    {
        "inception": "ipv2.measures.clean_fid:inception",
        "clip": "ipv2.measures.clean_fid:clip",
    }
)
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_TAKES = ("uint8", "unit")
_SEE = "The docstring of ipv2/measures/feature_extractors.py says what it must return."


def find_extractor(name: str, key: str = "config.evaluate.features") -> Extractor:
    """Returns the extractor of a name of `EXTRACTORS`, or a user's own.

    Args:
      name: of `EXTRACTORS`, or 'package.module:function'.
      key: the config key that holds it, for messages.

    Raises:
      UserError: There is no such function, or its module raises.
    """
    name = EXTRACTORS.get(name, name)
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{key}: got {name!r}, accepted: {', '.join(EXTRACTORS)}, or "
            "'package.module:function' of your own"
        )
    module_name, _, function_name = name.partition(":")
    module = import_own_module(module_name, key)
    found = getattr(module, function_name, None)
    if not callable(found):
        functions = [k for k, v in vars(module).items() if callable(v) and k[0] != "_"]
        raise UserError(
            f"{key}: {module_name} has no function {function_name!r}; it has "
            f"{', '.join(functions) or 'none'}"
        )
    takes = getattr(found, "takes", "uint8")
    if takes not in _TAKES:
        raise UserError(
            f"{key}: {name} takes {takes!r}; accepted: {', '.join(map(repr, _TAKES))}. "
            f"{_SEE}"
        )
    return found


def extract_features(
    extractor: Extractor,
    batches_hu: Iterable[Float[np.ndarray, "_ _ _"]],
    window: Window,
) -> Float[np.ndarray, "m d"]:
    """Returns the features of all m images, float64.

    Args:
      extractor: see `find_extractor`.
      batches_hu: images in HU, a batch at a time; their number may change.
      window: what is black and white.

    Raises:
      UserError: The extractor raises, or returns other than finite (n, d) numbers.
      ValueError: There is no image.
    """
    takes = getattr(extractor, "takes", "uint8")
    name = f"{extractor.__module__}:{getattr(extractor, '__name__', 'extractor')}"
    to_grey = to_uint8 if takes == "uint8" else to_unit
    parts: list[np.ndarray] = []
    for images_hu in batches_hu:
        with OwnCode(f"the features of {name} cannot be computed", _SEE):
            found = extractor(to_grey(images_hu, window))
        part = np.asarray(found)
        width = parts[0].shape[1:] if parts else part.shape[1:]
        if part.ndim != 2 or len(part) != len(images_hu) or part.shape[1:] != width:
            raise UserError(
                f"{name} must return (n, d) features; got {part.shape} for "
                f"{len(images_hu)} images, after {width} of earlier ones. {_SEE}"
            )
        if not (np.issubdtype(part.dtype, np.number) and np.all(np.isfinite(part))):
            raise UserError(
                f"{name} must return finite numbers; got {part.dtype} with "
                f"infinite or missing ones. {_SEE}"
            )
        parts.append(part.astype(np.float64))
    if not parts:
        raise ValueError("there is no image to take features of")
    return np.concatenate(parts)


def to_unit(
    images_hu: Float[np.ndarray, "*b h w"], window: Window
) -> Float[np.ndarray, "*b h w"]:
    """Returns the images in [0, 1], black to white of the window, clipped, float32."""
    grey = (np.asarray(images_hu, np.float32) - window.low_hu) / window.width_hu
    return np.clip(grey, 0, 1, dtype=np.float32)


def to_uint8(
    images_hu: Float[np.ndarray, "*b h w"], window: Window
) -> UInt8[np.ndarray, "*b h w"]:
    """Returns the images as 8 bits: 255 `to_unit`, rounded."""
    return np.rint(255 * to_unit(images_hu, window)).astype(np.uint8)
