"""Numbers of the samples of each step: the data-free batches of the training loop."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from common.typing import Batch


class Draws:
    """Endless batches of consecutive numbers, from which samples are drawn.

    Batch i of a run holds first + i * size and the next size - 1 numbers, divided over
    the processes in their order.
    """

    def __init__(self, batch_size: int, *, first: int = 0) -> None:
        """Starts at the first batch.

        Args:
          batch_size: over all devices of all processes.
          first: number of the first sample.
        """
        self._size, self._first, self._batch = batch_size, first, 0

    def __iter__(self) -> Iterator[Batch]:
        """Returns itself."""
        return self

    def __next__(self) -> Batch:
        """Returns this process's numbers in `draw`, uint32."""
        own = self._size // jax.process_count()
        start = self._first + self._batch * self._size + own * jax.process_index()
        self._batch += 1
        return {"draw": np.arange(start, start + own).astype(np.uint32)}

    def get_state(self) -> dict[str, Any]:
        """Returns the position."""
        return {"batch": self._batch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position."""
        self._batch = int(state["batch"])
