"""Opens a folder of images, with one subfolder per class, as evaluation data."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Int32

from acq.datasets.decoding import Framing, StoredImages, read_image
from common.errors import UserError

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp"),
    *(".ppm", ".pgm", ".tif", ".tiff"),
)
_LAYOUT = "Give a folder that holds one subfolder of images for each class."


def open_folder(
    folder: Path, framing: Framing, *, classes: int, order: Path | None = None
) -> tuple[StoredImages, Int32[np.ndarray, "n"]]:
    """Returns the images of a folder, not read yet, and their labels.

    A subfolder is a class; its images may be at any depth. Hidden files and folders do
    not count.

    Args:
      folder: Holds the folders of the classes.
      framing: Size and channels for the classifier.
      classes: Number of the teacher's classes.
      order: A text file with the folder of one class per line, in the order of the
        teacher's logits; some folders may be missing. None sorts all folders: by number
        if all names are numbers, else as text.

    Raises:
      UserError: The folder has other classes, or no images.
    """
    found = [
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    ]
    if not found:
        raise UserError(f"{folder}: no subfolders. {_LAYOUT}")
    names = _sorted_classes(found, folder) if order is None else _read_order(order)
    if order is not None and (unknown := sorted(set(found) - set(names))):
        raise UserError(
            f"{folder}: {_some(unknown)} are not in {order}, which lists the classes. "
            "Add them there, or remove the folders."
        )
    if len(names) != classes:
        where = folder if order is None else order
        raise UserError(
            f"{where}: {len(names)} classes ({_some(names)}), the teacher has "
            f"{classes}. {_LAYOUT} If classes are missing, give config.eval.classes: a "
            "text file with the folder of each class, a line each."
        )
    files, labels = [], []
    for label, name in enumerate(names):
        inside = _image_files(folder / name)
        files += inside
        labels += [label] * len(inside)
    if not files:
        raise UserError(f"{folder}: no images ({', '.join(SUFFIXES)}). {_LAYOUT}")
    if empty := sorted(set(range(classes)) - set(labels)):
        logging.warning(
            "%s: no images of %s", folder, _some([names[label] for label in empty])
        )
    return (
        StoredImages(
            functools.partial(_read, files, framing), len(files), framing.shape
        ),
        np.asarray(labels, np.int32),
    )


def _sorted_classes(found: Sequence[str], folder: Path) -> list[str]:
    """Returns the classes' names in the order of their labels, and logs this order."""
    as_text = sorted(found)
    if not all(name.isascii() and name.isdigit() for name in found):
        logging.info("%s: classes sorted by name: %s", folder, _some(as_text))
        return as_text
    by_number = sorted(found, key=lambda name: (int(name), name))
    if by_number == as_text:
        logging.info("%s: classes sorted by number: %s", folder, _some(as_text))
        return by_number
    label = next(i for i, name in enumerate(as_text) if name != by_number[i])
    logging.warning(
        "%s: classes sorted by number: label %d is %s. As text, as torchvision's "
        "ImageFolder sorts them, it is %s. If the teacher learnt that order, give it: "
        "config.eval.classes, a text file with the folder of each class, a line each.",
        folder, label, by_number[label], as_text[label],
    )  # fmt: skip
    return by_number


def _read(files: Sequence[str], framing: Framing, index: int) -> np.ndarray:
    return read_image(Path(files[index]), framing, files[index])


def _image_files(folder: Path) -> list[str]:
    """Returns the sorted paths of the images in a folder, at any depth."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _read_order(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"config.eval.classes: {path} is not readable as text ({error}). Give a "
            "file with the folder of each class, a line each."
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"config.eval.classes: {path} names {_some(twice)} more than once. Give "
            "one class per line, in the order of the teacher's logits."
        )
    return names


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
