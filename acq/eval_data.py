"""Images and labels that a classifier is evaluated on, and never anything else."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32


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
      name: Where they come from, for messages.
      images: By place; uint8 when read.
      labels: The class of each.
      classes: How many there are.
    """

    name: str
    images: Rows
    labels: Int32[np.ndarray, "n"]
    classes: int

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)
