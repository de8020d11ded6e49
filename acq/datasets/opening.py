"""Opens the labelled images that the settings name."""

import dataclasses
from pathlib import Path

import numpy as np
from absl import logging

from acq.classifier import Record
from acq.datasets.decoding import Framing
from acq.datasets.digits import CLASSES, load_digits
from acq.datasets.eval_data import EvalData, check_eval_data
from acq.datasets.folder import open_folder
from acq.datasets.npz import from_arrays, read_npz
from acq.datasets.settings import SPLITS, EvalDataSettings
from acq.datasets.tfds_images import is_prepared_folder, open_dataset, open_prepared
from acq.datasets.unusable import reporting_all_unusable
from common.pipeline import read_ahead
from common.progress import Progress

# Images of at most this size together are decoded once and kept in memory.
_HELD_BYTES = 1 << 28
_CHUNK = 256


def open_eval_data(settings: EvalDataSettings, record: Record) -> EvalData | None:
    """Returns the labelled images to evaluate on; None if the settings name none.

    Args:
      settings: Of the images.
      record: Of the teacher; gives image size, channels and classes.

    Raises:
      UserError: The images do not exist, are not readable, or do not fit the teacher.
    """
    if settings.path:
        data = _open_path(settings, record)
    elif settings.dataset == "digits":
        test = load_digits().test
        data = from_arrays("digits", test.images, test.labels, CLASSES, record)
    elif settings.dataset:
        images, labels, classes = open_dataset(
            settings.dataset,
            settings.split,
            _framing(settings, record),
            cache=settings.cache,
            limit=settings.limit,
        )
        name = f"{settings.dataset} {settings.split or SPLITS[settings.dataset]}"
        data = check_eval_data(name, images, labels, classes, record)
    else:
        return None
    data = data.spread(settings.limit)
    with reporting_all_unusable(data.images):
        data = _held(data)
    logging.info("evaluation data: %d images of %s", len(data), data.name)
    return data


def _framing(settings: EvalDataSettings, record: Record) -> Framing:
    return Framing(
        size=record.image_size,
        channels=record.channels,
        resize=settings.resize,
        interpolation=settings.interpolation,
    )


def _open_path(settings: EvalDataSettings, record: Record) -> EvalData:
    path = Path(settings.path)
    if not path.is_dir():
        images, labels, classes = read_npz(path)
        return from_arrays(str(path), images, labels, classes, record)
    if is_prepared_folder(path):
        images, labels, classes = open_prepared(
            path, settings.split, _framing(settings, record), limit=settings.limit
        )
        return check_eval_data(str(path), images, labels, classes, record)
    images, labels = open_folder(
        path,
        _framing(settings, record),
        classes=record.classes,
        order=Path(settings.classes) if settings.classes else None,
    )
    return check_eval_data(str(path), images, labels, record.classes, record)


def _held(data: EvalData) -> EvalData:
    """Returns the data, decoded in memory if that needs little memory."""
    first = data.images[:1]
    if isinstance(data.images, np.ndarray) or len(data) * first.nbytes > _HELD_BYTES:
        return data
    images = np.empty((len(data), *first.shape[1:]), np.uint8)
    starts = range(0, len(data), _CHUNK)
    chunks = (slice(start, start + _CHUNK) for start in starts)
    with Progress(f"{data.name}: reading", len(data), "images") as progress:
        for start, part in zip(
            starts, read_ahead(data.images.__getitem__, chunks), strict=True
        ):
            images[start : start + len(part)] = part
            progress.update(len(part))
    return dataclasses.replace(data, images=images)
