"""The evaluation data of a run, checked against its teacher."""

from pathlib import Path

import numpy as np

from acq.classifier import Classifier
from acq.digits import load_digits
from acq.eval_data import EvalData
from acq.eval_npz import read_npz
from common.config import ConfigDict
from common.errors import UserError


def open_eval_data(config: ConfigDict, teacher: Classifier) -> EvalData | None:
    """Returns the labelled images to evaluate on; None if the config names none.

    Raises:
      UserError: they cannot be read, or are of other images or classes than the
        teacher's.
    """
    settings = config.eval
    if settings.path and settings.dataset:
        raise UserError("config.eval.dataset: given with config.eval.path; give one")
    if settings.path:
        data = read_npz(Path(settings.path))
    elif settings.dataset == "digits":
        test = load_digits().test
        data = EvalData(
            name="digits", images=test.images, labels=test.labels, classes=10
        )
    else:
        return None
    _refuse_others(data, teacher)
    return limited(data, settings.limit)


def _refuse_others(data: EvalData, teacher: Classifier) -> None:
    record = teacher.record
    shape = data.images[np.arange(1)].shape[1:]
    wanted = record.image_shape(1)[1:]
    if shape != wanted:
        raise UserError(
            f"{data.name}: images are {shape}, but the teacher {record.name} takes "
            f"{wanted} (height, width, channels). Give images of that size, or another "
            "teacher or config.teacher.image_size."
        )
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= record.classes:
        raise UserError(
            f"{data.name}: labels run from {low} to {high}, but the teacher "
            f"{record.name} has {record.classes} classes, 0 to {record.classes - 1}. "
            "Give data of the teacher's classes, or set config.teacher.classes."
        )


def limited(data: EvalData, limit: int) -> EvalData:
    """Returns `limit` of the images, evenly spread; all of them for 0."""
    if not limit or limit >= len(data):
        return data
    places = np.linspace(0, len(data) - 1, limit).round().astype(np.int64)
    return EvalData(
        name=data.name,
        images=data.images[places],
        labels=data.labels[places],
        classes=data.classes,
    )
