"""All measured images as PNG in the lung window: `config.evaluate.png`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipv2.measures.evaluation import MakeImages, Slices
from ipv2.measures.metrics import WINDOWS
from ipv2.measures.png_folders import write_png_folders
from ipv2.tasks.distances import WINDOW, with_reference


def write_images(
    root: Path,
    batches: Iterator[tuple[Slices, int]],
    make_images: MakeImages,
    identities: Sequence[Mapping[str, Any]],
) -> None:
    """Writes a folder for the reference, the input and every image.

    Args:
      root: folder of a data set, made if needed.
      batches: prepared slices, see `evaluation.prepared_batches`.
      make_images: makes the images of a batch.
      identities: `patient`, `name` and `slice` of each slice.

    Raises:
      UserError: the folder holds other images.
    """
    done = 0
    for batch, count in batches:
        images = with_reference(batch, make_images)
        names = [
            _file_name(number, identities[number])
            for number in range(done, done + count)
        ]
        kept = {name: image[:count] for name, image in images.items()}
        write_png_folders(root, kept, names, WINDOWS[WINDOW])
        done += count


def _file_name(number: int, identity: Mapping[str, Any]) -> str:
    """Returns number, volume and slice; other characters become '-'."""
    words = f"{number:05d}_{identity['name']}_{identity['slice']}"
    return re.sub(r"[^\w.-]", "-", words)
