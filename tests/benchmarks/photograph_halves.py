"""Cuts a folder of photographs into a half that evaluates and one that teaches.

    python -m tests.benchmarks.photograph_halves --images FOLDER --folder DIR \
        [--classes TEXT] [--size 128] [--smoke]

FOLDER holds a folder of images for each class; TEXT lists the folders of all classes, a
line each, if some are missing. The short side is resized to the size and the middle
cropped; images stay in the order of their classes. DIR gets `evaluate.npz`, the first,
third, ... of them; `teach.npz`, the others; and `both.npz`, those that evaluate before
those that teach, as `acq_real_images` reads them.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from acq.datasets.decoding import Framing
from acq.datasets.folder import open_folder
from tests.benchmarks.shared.arguments import create_parser, parse


def write_halves(images: Path, folder: Path, size: int, order: Path | None) -> None:
    """Writes the three files; prints their names and counts."""
    framing = Framing(size=size, channels=3, resize=1.0, interpolation="bicubic")
    listed = order.read_text().splitlines() if order else list(images.iterdir())
    stored, labels = open_folder(images, framing, classes=len(listed), order=order)
    pixels = np.asarray(stored[np.arange(len(stored))])
    places = np.arange(len(stored))
    evaluate, teach = places[::2], places[1::2]
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in {
        "evaluate": evaluate,
        "teach": teach,
        "both": np.concatenate([evaluate, teach]),
    }.items():
        path = folder / f"{name}.npz"
        np.savez(path, images=pixels[chosen], labels=labels[chosen])
        print(f"{path}: {len(chosen)} images of {size} x {size} pixels")


def smoke(folder: Path) -> list[str]:
    """Writes five small photographs of two classes; returns the arguments."""
    for number in range(5):
        path = folder / "images" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (50 * number, 0, 0)).save(path)
    return [
        *("--images", str(folder / "images"), "--folder", str(folder / "halves")),
        *("--size", "4"),
    ]


def main(command_line: Sequence[str] | None = None) -> None:
    """Writes the halves."""
    parser = create_parser(__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--classes", type=Path)
    parser.add_argument("--size", type=int, default=128)
    with tempfile.TemporaryDirectory() as folder:
        options = parse(parser, command_line, lambda: smoke(Path(folder)))
        write_halves(options.images, options.folder, options.size, options.classes)


if __name__ == "__main__":
    main()
