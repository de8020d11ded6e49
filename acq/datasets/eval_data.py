"""Images and labels, used only to evaluate a classifier."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32

from acq.classifier import Record
from common.errors import UserError


@runtime_checkable
class Rows(Protocol):
    """Images by index: an array, or an object that reads them lazily."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, indices: Any, /) -> np.ndarray:
        """Images at an array or slice of indices, uint8 `b h w c`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EvalData:
    """Labelled images.

    Attributes:
      name: Their source, for messages and results.
      images: By index; uint8 `b h w c` when read.
      labels: The class of each image, from 0.
      classes: Number of classes.
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
        indices = spread_by_class(self.labels, count)
        return dataclasses.replace(
            self, images=_Chosen(self.images, indices), labels=self.labels[indices]
        )


class _Chosen:
    """A selection of images."""

    def __init__(self, images: Rows, indices: Int[np.ndarray, "m"]) -> None:
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, indices: Any) -> np.ndarray:
        return self._images[self._indices[indices]]


def check_eval_data(
    name: str, images: Rows, labels: np.ndarray, classes: int | None, record: Record
) -> EvalData:
    """Returns evaluation data, after a check that the classifier has its classes.

    Args:
      name: Source of the data.
      images: Of the classifier's size.
      labels: Integers.
      classes: Number of classes in the data; None if unknown.
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
    """Returns `count` sorted indices at which classes are as frequent as in all."""
    by_class = np.argsort(labels, kind="stable")
    count = min(count, len(labels))
    middles = (2 * np.arange(count) + 1) * len(labels) // max(2 * count, 1)
    return np.sort(by_class[middles])
