"""2.5-D records: each slice with its neighbours from the same volume."""

from typing import Any

import numpy as np

from common.pipeline import Record, Source

_IMAGES = ("lq", "gt")


class Stacks:
    """Records whose `lq` and `gt` are stacks (c, h, w) around the record's slice.

    A neighbour is the next record, if it is of the same volume and its `slice` is one
    higher (or lower). At the volume's ends, and where slices are missing, the nearest
    existing slice repeats. All other keys are those of the middle record.
    """

    def __init__(self, source: Source, channels: int) -> None:
        """Reads nothing yet.

        Args:
          source: records of `datasets.pair`, sorted by volume and slice.
          channels: slices per stack, odd.
        """
        if channels < 1 or channels % 2 == 0:
            raise ValueError(f"a stack has an odd number of slices, got {channels}")
        self._source, self._reach = source, channels // 2

    def __len__(self) -> int:
        """Returns the number of slices."""
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        """Returns the record at `index`, with its neighbours."""
        middle = self._source[index]
        below = self._neighbours(index, middle, -1)
        above = self._neighbours(index, middle, 1)
        stack = [*reversed(below), middle, *above]
        images = {key: np.stack([record[key] for record in stack]) for key in _IMAGES}
        return {**middle, **images}

    def _neighbours(self, index: int, middle: Record, side: int) -> list[Record]:
        """Returns the records on one side of a slice, nearest first."""
        found = []
        last = middle
        for distance in range(1, self._reach + 1):
            place = index + side * distance
            record = self._source[place] if 0 <= place < len(self._source) else None
            if record is not None and _follows(record, last, side):
                last = record
            found.append(last)
        return found


def _follows(record: Record, before: Record, side: int) -> bool:
    """Returns whether a record is the next slice of the same volume on that side."""
    same = all(record[key] == before[key] for key in ("name", "patient"))
    adjacent = int(record["slice"]) - int(before["slice"]) == side
    return same and adjacent and _shape(record) == _shape(before)


def _shape(record: Record) -> tuple[Any, ...]:
    return np.shape(record["lq"])
