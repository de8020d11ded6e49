"""Images and labels that a classifier is evaluated on, and never anything else."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32

from acq.classifier import Record
from common.errors import UserError


@runtime_checkable
class Rows(Protocol):
    """Images by place: an array, or what reads them when they are asked for."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, places: Any, /) -> np.ndarray:
        """The images at an array or slice of places, uint8 `b h w c`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EvalData:
    """Labelled images.

    Attributes:
      name: Where they come from, for messages and results.
      images: By place; uint8 `b h w c` when read.
      labels: The class of each, from 0.
      classes: How many there are.
    """

    name: str
    images: Rows
    labels: Int32[np.ndarray, "n"]
    classes: int

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def spread(self, count: int) -> "EvalData":
        """Returns at most `count` of the images, evenly of every class; 0: all."""
        if not count or count >= len(self):
            return self
        places = spread_by_class(self.labels, count)
        return dataclasses.replace(
            self, images=_Chosen(self.images, places), labels=self.labels[places]
        )


class _Chosen:
    """Some of the images, as images."""

    def __init__(self, images: Rows, places: Int[np.ndarray, "m"]) -> None:
        self._images, self._places = images, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, places: Any) -> np.ndarray:
        return self._images[self._places[places]]


def check_eval_data(
    name: str, images: Rows, labels: np.ndarray, classes: int | None, record: Record
) -> EvalData:
    """Returns evaluation data, known to be of a classifier's classes.

    Args:
      name: Where it comes from.
      images: Of the classifier's size.
      labels: Whole numbers.
      classes: How many the data has; None where it does not tell.
      record: Of the classifier.

    Raises:
      UserError: There are no images, or labels are not the classifier's.
    """
    if not len(labels):
        raise UserError(f"{name}: no images. Give at least one.")
    if classes is not None and classes != record.classes:
        raise UserError(
            f"{name}: data of {classes} classes, the teacher has {record.classes}. "
            "Give evaluation data of the teacher's own classes."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= record.classes:
        raise UserError(
            f"{name}: labels from {low} to {high}, the teacher's {record.classes} "
            f"classes are 0 to {record.classes - 1}. Give evaluation data of the "
            "teacher's own classes, in the order of its logits."
        )
    return EvalData(
        name=name,
        images=images,
        labels=labels.astype(np.int32),
        classes=record.classes,
    )


def spread_by_class(labels: Int[np.ndarray, "n"], count: int) -> Int[np.ndarray, "m"]:
    """Returns `count` places, rising, at which classes are as frequent as in all."""
    by_class = np.argsort(labels, kind="stable")
    count = min(count, len(labels))
    middles = (2 * np.arange(count) + 1) * len(labels) // max(2 * count, 1)
    return np.sort(by_class[middles])
