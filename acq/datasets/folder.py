"""A folder of images, one subfolder a class, as evaluation data."""

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
_LAYOUT = "Give a folder that holds one subfolder a class, with its images."


def open_folder(
    folder: Path, framing: Framing, *, classes: int, order: Path | None = None
) -> tuple[StoredImages, Int32[np.ndarray, "n"]]:
    """Returns the images of a folder, not read yet, and their labels.

    A class is a subfolder; its images may lie deeper. Hidden files and folders do not
    count.

    Args:
      folder: Of the classes' folders.
      framing: What the classifier takes.
      classes: How many the teacher has.
      order: A text file with a class's folder a line, in the order of the teacher's
        logits, of which some may be missing; None for all of them, sorted: names that
        are all numbers by number, others as text.

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
            f"{folder}: {_some(unknown)} are not in {order}, which tells the classes. "
            "Add them there, or take the folders away."
        )
    if len(names) != classes:
        where = folder if order is None else order
        raise UserError(
            f"{where}: {len(names)} classes ({_some(names)}), the teacher has "
            f"{classes}. {_LAYOUT} Where classes are missing, config.eval.classes is "
            "a text file with the folder of each class, a line each."
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
    """The classes' names in the order of their labels; says which one that is."""
    as_text = sorted(found)
    if not all(name.isascii() and name.isdigit() for name in found):
        logging.info("%s: classes sorted by name: %s", folder, _some(as_text))
        return as_text
    by_number = sorted(found, key=lambda name: (int(name), name))
    if by_number == as_text:
        logging.info("%s: classes sorted by number: %s", folder, _some(as_text))
        return by_number
    place = next(i for i, name in enumerate(as_text) if name != by_number[i])
    logging.warning(
        "%s: classes sorted by number: label %d is %s. As text, as torchvision's "
        "ImageFolder sorts them, it is %s. If the teacher learnt that order, give it: "
        "config.eval.classes, a text file with the folder of each class, a line each.",
        folder, place, by_number[place], as_text[place],
    )  # fmt: skip
    return by_number


def _read(files: Sequence[str], framing: Framing, place: int) -> np.ndarray:
    return read_image(Path(files[place]), framing, files[place])


def _image_files(folder: Path) -> list[str]:
    """Paths of the images in a folder and below, sorted."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(place, name)
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
            f"config.eval.classes: {path} names {_some(twice)} more than once. A line "
            "is a class, in the order of the teacher's logits."
        )
    return names


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
