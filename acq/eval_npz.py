"""Evaluation data in one file: an .npz with `images` and `labels`."""

import zipfile
from pathlib import Path

import numpy as np

from acq.eval_data import EvalData
from common.errors import UserError

_WANTED = (
    "an .npz with `images`, uint8 (n, height, width, channels), and `labels`, whole "
    "numbers (n,)"
)


def read_npz(path: Path) -> EvalData:
    """Returns the images and labels of a file.

    Raises:
      UserError: it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"config.eval.path: {path} is not readable ({error}); accepted: {_WANTED}"
        ) from error
    lacking = {"images", "labels"} - found.keys()
    if lacking:
        raise UserError(
            f"config.eval.path: {path} has {', '.join(sorted(found)) or 'nothing'}, "
            f"and lacks {', '.join(sorted(lacking))}; accepted: {_WANTED}"
        )
    images, labels = found["images"], found["labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise UserError(
            f"config.eval.path: {path} has images of type {images.dtype} and shape "
            f"{images.shape}; accepted: {_WANTED}"
        )
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.shape != images.shape[:1]:
        raise UserError(
            f"config.eval.path: {path} has labels of type {labels.dtype} and shape "
            f"{labels.shape} for {len(images)} images; accepted: {_WANTED}"
        )
    return EvalData(
        name=str(path),
        images=images,
        labels=labels.astype(np.int32),
        classes=int(labels.max()) + 1,
    )
