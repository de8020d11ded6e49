"""Evaluates the teacher before any training, and checks that it is the intended one.

Only given weights (source 'weights') are judged. A teacher that the run makes itself,
from digits or at random, is only reported.
"""

import dataclasses
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float32

from acq.accuracy import (
    Accuracy,
    classes_of,
    logits_of,
    measure_accuracy,
    predict,
)
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.teacher.chance import compare_with_chance, fewest_judged, renamed_classes
from acq.teacher.input_statistics import (
    FAR,
    InputStatistics,
    measure_input_statistics,
    preparation_warnings,
)
from acq.teacher.settings import Source
from common.errors import UserError

_MOST_NAMED = 5
_PREPARATION = (
    "config.teacher.mean and std of other images, or of images from 0 to 255",
    "colours in another order (BGR), or another preparation of the images",
)
_OTHERS = (
    "labels in another order than the logits: those of the .npz, or "
    "config.eval.classes for a folder",
    "weights of another variant of the network (config.teacher.shortcut, "
    "stride_in_first, an anti-aliased one)",
    "weights that were never trained",
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TeacherEvaluation:
    """Results of a teacher on the evaluation images.

    Attributes:
      logits: Of every image.
      accuracy: On all images.
      statistics: Of some images at the BatchNorm layers; None for random weights, which
        have no statistics.
      warnings: Suspicious results, as sentences.
      refusal: Why this cannot be the intended teacher; '' if it can.
    """

    logits: Float32[np.ndarray, "n k"]
    accuracy: Accuracy
    statistics: InputStatistics | None
    warnings: tuple[str, ...] = ()
    refusal: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the entry for `results.json`."""
        found = {"top1": self.accuracy.top1, "correct": self.accuracy.correct}
        if self.statistics is None:
            return found
        return {**found, "statistics": self.statistics.to_json()}


def evaluate_teacher(
    teacher: Classifier, data: EvalData, *, source: Source, batch_size: int
) -> TeacherEvaluation:
    """Returns and logs the results of a teacher on the evaluation images.

    It reads every image, so an unusable image is found here.

    Args:
      teacher: The float network.
      data: Labelled images.
      source: Of its weights.
      batch_size: Images at once over all devices.

    Raises:
      UserError: Images cannot be used; the message names them.
    """
    logits = predict(
        logits_of(teacher.network),
        teacher.variables,
        data.images,
        batch_size=batch_size,
        normalisation=teacher.record.normalisation,
        name="teacher",
    )
    accuracy = measure_accuracy(logits, data.labels)
    logging.info(
        "teacher: %.2f %% of %d images (%d wrong)",
        accuracy.top1, accuracy.n, accuracy.n - accuracy.correct,
    )  # fmt: skip
    if source == "random":
        return TeacherEvaluation(logits=logits, accuracy=accuracy, statistics=None)
    statistics = measure_input_statistics(teacher, data)
    logging.info(
        "evaluation images at the teacher's BatchNorm layers: distance %s",
        statistics.words(),
    )
    if source != "weights":
        return TeacherEvaluation(
            logits=logits, accuracy=accuracy, statistics=statistics
        )
    warnings = [
        *preparation_warnings(statistics, teacher, data),
        *_label_warnings(logits, accuracy, data),
    ]
    refusal = _refusal(logits, accuracy, teacher, statistics, warnings)
    if not refusal:
        warnings += _doubts(accuracy, teacher)
        for text in warnings:
            logging.warning("%s", text)
    return TeacherEvaluation(
        logits=logits,
        accuracy=accuracy,
        statistics=statistics,
        warnings=tuple(warnings),
        refusal=refusal,
    )


def refuse_wrong_teacher(found: TeacherEvaluation) -> None:
    """Raises UserError for a teacher that is not better than guessing."""
    if found.refusal:
        raise UserError(found.refusal)


def _refusal(
    logits: Float32[np.ndarray, "n k"],
    accuracy: Accuracy,
    teacher: Classifier,
    statistics: InputStatistics,
    warnings: list[str],
) -> str:
    record = teacher.record
    if not np.isfinite(logits).all(-1).any():
        return (
            f"{record.source}: no image has finite logits: the weights, or "
            "config.teacher.mean and std, are not those of a trained network."
        )
    if compare_with_chance(accuracy, record.classes) != "at_chance":
        return ""
    far = statistics.distance >= FAR
    likely = (_PREPARATION, _OTHERS) if far else (_OTHERS, _PREPARATION)
    lines = [
        *(f"found: {text}" for text in warnings),
        f"the images {'do not fit' if far else 'fit'} its BatchNorm statistics: "
        f"distance {statistics.distance:.2f}, far from {FAR} on",
        *(f"perhaps: {text}" for causes in likely for text in causes),
    ]
    return (
        f"{record.source}: the teacher gets {accuracy.correct} of {accuracy.n} "
        f"evaluation images right ({accuracy.top1:.2f} %); guessing one of "
        f"{record.classes} classes gives {100 / record.classes:.2f} %. It is not the "
        "trained network that these images and labels are of.\n  "
        + "\n  ".join(lines)
        + "\nTo quantize it as it is, leave config.eval.path and config.eval.dataset "
        "empty."
    )


def _label_warnings(
    logits: Float32[np.ndarray, "n k"], accuracy: Accuracy, data: EvalData
) -> list[str]:
    """Returns warnings about labels: another order, or one class for all images."""
    given = classes_of(logits)
    count = len(np.unique(data.labels))
    if len(np.unique(given)) == 1 and count > 1:
        return [
            f"the teacher gives class {given[0]} for all {accuracy.n} images of "
            f"{count} classes"
        ]
    if (renamed := renamed_classes(given, data.labels)) is None:
        return []
    names = [f"{label} is its {k}" for label, k in renamed.names.items()]
    more = len(names) - _MOST_NAMED
    return [
        "the labels seem to be in another order than the teacher's logits: "
        f"{renamed.correct} instead of {accuracy.correct} of {accuracy.n} images would "
        f"be right if label {', '.join(names[:_MOST_NAMED])}"
        + (f" and {more} more" if more > 0 else "")
        + ". Give the labels of the .npz in its order, or config.eval.classes for a "
        "folder."
    ]


def _doubts(accuracy: Accuracy, teacher: Classifier) -> list[str]:
    """Returns a warning if there are too few images for a judgement."""
    classes = teacher.record.classes
    if compare_with_chance(accuracy, classes) != "too_few":
        return []
    return [
        f"the teacher gets {accuracy.correct} of {accuracy.n} evaluation images right: "
        f"too few to tell it from guessing ({fewest_judged(classes)} do)"
    ]
