"""Makes evaluation data from the arrays of an `.npz`."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from acq.classifier import Record
from acq.datasets.eval_data import EvalData, check_eval_data
from common.errors import UserError

_NPZ = (
    "Evaluation data is an .npz with `images`, uint8 `n h w c`, and `labels`, n whole "
    "numbers from 0."
)


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Returns `images`, `labels` and the length of `class_names`, or None for it.

    Raises:
      UserError: The file is not an .npz, is damaged, or lacks images or labels.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(f"config.eval.path: {path} is not an .npz. {_NPZ}")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            if lacking := [key for key in ("images", "labels") if key not in names]:
                raise UserError(
                    f"{path}: no {' and no '.join(lacking)} in it; it has "
                    f"{', '.join(names) or 'nothing'}. {_NPZ}"
                )
            classes = len(file["class_names"]) if "class_names" in names else None
            return file["images"], file["labels"], classes
    except UserError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: damaged, or holds Python objects ({error}). {_NPZ}"
        ) from error


def from_arrays(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    classes: int | None,
    record: Record,
) -> EvalData:
    """Returns arrays as evaluation data of a classifier.

    Args:
      name: Their source.
      images: The array that should hold images.
      labels: The array that should hold labels.
      classes: Number of classes in the data; None if unknown.
      record: Of the classifier.

    Raises:
      UserError: Dtypes, sizes or labels do not fit the classifier.
    """
    wanted = record.image_shape(len(images) if images.ndim else 0)
    if images.dtype != np.uint8:
        raise UserError(
            f"{name}: images are {images.dtype}, accepted: uint8, from 0 to 255, not "
            f"normalised: the teacher's mean and std are applied here. {_NPZ}"
        )
    if images.shape != wanted:
        hint = ""
        if images.shape == wanted[:3] and record.channels == 1:
            hint = " Add the axis of channels: images[..., None]."
        elif images.ndim == 4 and images.shape[1] == record.channels:
            hint = " Channels come last: images.transpose(0, 2, 3, 1)."
        raise UserError(
            f"{name}: images are {_sizes(images.shape)}, the teacher takes "
            f"{_sizes(wanted)} (n h w c).{hint}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != wanted[:1]:
        raise UserError(
            f"{name}: labels are {labels.dtype} of shape {labels.shape}, accepted: "
            f"{len(images)} whole numbers, one for each image. {_NPZ}"
        )
    return check_eval_data(name, images, labels, classes, record)


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
