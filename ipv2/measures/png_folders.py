"""Lays images out as folders of PNG, so that anyone can compute distances again.

    root/reference/p3_0001.png
    root/output/p3_0001.png
    root/png_folders.json       window, bits, what a grey level means

These are the images that `feature_extractors` give to a network. With clean-fid:

    from cleanfid import fid
    fid.compute_fid("root/output", "root/reference", mode="clean")
    fid.compute_fid(..., mode="clean", model_name="clip_vit_b_32")
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from common.errors import UserError
from common.files import replacing, write_atomically
from ipv2.measures.feature_extractors import to_uint8
from ipv2.measures.metrics import Window

DESCRIPTION = "png_folders.json"
_NAME = re.compile(r"[\w.-]+")


def write_png_folders(
    root: str | os.PathLike[str],
    images_hu: Mapping[str, Float[np.ndarray, "n h w"] | Float[Array, "n h w"]],
    names: Sequence[str],
    window: Window,
) -> None:
    """Writes a batch of slices; call it again for further slices.

    A file that holds the same image already stays.

    Args:
      root: folder, made if needed.
      images_hu: {folder: images}, HU. Every call has the same folders.
      names: of the slices, without an extension; they are the same in every folder.
      window: black and white, the same for every call.

    Raises:
      UserError: The root holds folders of another window or other images, or a file is
        there that holds another image.
      ValueError: Names are not one per slice, or no names of files.
    """
    root = Path(root)
    for name in (*images_hu, *names):
        if not _NAME.fullmatch(name) or name.startswith("."):
            raise ValueError(f"{name!r}: letters, digits, '_', '-' and '.' make a name")
    if len(set(names)) != len(names) or any(
        len(images) != len(names) for images in images_hu.values()
    ):
        counts = {folder: len(images) for folder, images in images_hu.items()}
        raise ValueError(f"names: got {len(names)} for {counts}; one for each slice")
    _describe(root, list(images_hu), window)
    for folder, images in images_hu.items():
        greys = to_uint8(np.asarray(images), window)
        for name, grey in zip(names, greys, strict=True):
            path = root / folder / f"{name}.png"
            if path.exists():
                _require_same(path, grey, root)
                continue
            with replacing(path) as temporary:
                Image.fromarray(grey).save(temporary, format="PNG")


def _require_same(path: Path, grey: np.ndarray, root: Path) -> None:
    try:
        with Image.open(path, formats=["PNG"]) as file:
            same = np.array_equal(np.asarray(file), grey)
    except OSError as error:
        raise UserError(f"{path}: no PNG ({error}). Remove {root}.") from error
    if not same:
        raise UserError(
            f"{path}: it holds another image. Remove {root}, or give another folder."
        )


def _describe(root: Path, folders: Sequence[str], window: Window) -> None:
    """Writes the description, or checks that the one there says the same."""
    content: dict[str, Any] = {
        "folders": sorted(folders),
        "format": "PNG, grey",
        "bits": 8,
        "window_hu": {"centre": window.center_hu, "width": window.width_hu},
        "black_hu": window.low_hu,
        "white_hu": window.high_hu,
        "grey": "round(255 (HU - black) / (white - black)), 0 to 255",
        "recompute": "cleanfid.fid.compute_fid(folder, folder, mode='clean')",
    }
    path = root / DESCRIPTION
    if not path.exists():
        write_atomically(path, json.dumps(content, indent=2) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error}). Remove {root}.") from error
    if found != content:
        raise UserError(
            f"{path}: it describes other folders or another window. Remove {root}, or "
            "give another folder."
        )
