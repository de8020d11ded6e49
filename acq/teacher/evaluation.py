"""The teacher on the evaluation images, before any training: is it the one meant.

Weights that were given (the source 'weights') are judged. A teacher that
the run itself makes, of digits or at random, is reported as it is.
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
    """What the evaluation images tell of a teacher.

    Attributes:
      logits: Of every image.
      accuracy: On them.
      statistics: Of some of them at the BatchNorm layers; None for random weights,
        whose layers remember nothing.
      warnings: What looks wrong, in sentences.
      refusal: Why it cannot be the teacher that was meant; '' if it can.
    """

    logits: Float32[np.ndarray, "n k"]
    accuracy: Accuracy
    statistics: InputStatistics | None
    warnings: tuple[str, ...] = ()
    refusal: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `results.json` holds it."""
        found = {"top1": self.accuracy.top1, "correct": self.accuracy.correct}
        if self.statistics is None:
            return found
        return {**found, "statistics": self.statistics.to_json()}


def evaluate_teacher(
    teacher: Classifier, data: EvalData, *, source: Source, batch_size: int
) -> TeacherEvaluation:
    """Returns what the evaluation images tell of a teacher, after logging it.

    Every image is read, so that one that cannot be used is found here.

    Args:
      teacher: The float network.
      data: Labelled images.
      source: Where its weights come from.
      batch_size: Images at once over all devices.

    Raises:
      UserError: Images cannot be used; names them.
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
    """What speaks for other labels: another order, or one class for all images."""
    given = classes_of(logits)
    wanted = len(np.unique(data.labels))
    if len(np.unique(given)) == 1 and wanted > 1:
        return [
            f"the teacher gives class {given[0]} for all {accuracy.n} images of "
            f"{wanted} classes"
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
    """What is no proof: too few images to judge by."""
    classes = teacher.record.classes
    if compare_with_chance(accuracy, classes) != "too_few":
        return []
    return [
        f"the teacher gets {accuracy.correct} of {accuracy.n} evaluation images right: "
        f"too few to tell it from guessing ({fewest_judged(classes)} do)"
    ]
