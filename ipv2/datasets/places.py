"""Where in a dataset whose slices are, and views of some of them.

A place is a run of consecutive records of one pair of volumes. A dataset's metadata
hold those of each of its TFDS splits, in order, so that records are chosen without a
look at them.
"""

import collections
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.pipeline import Source


class Place(NamedTuple):
    """Consecutive records of one pair.

    Attributes:
      patient: whose.
      name: of the pair.
      start: first record.
      stop: behind the last record.
      rows: of the slices.
      columns: of the slices.
      spacing_known: whether the records' `spacing_mm` is a fact, not NaN.
    """

    patient: str
    name: str
    start: int
    stop: int
    rows: int
    columns: int
    spacing_known: bool

    @property
    def records(self) -> int:
        """How many records."""
        return self.stop - self.start

    @property
    def size(self) -> str:
        """Of the slices, in words."""
        return f"{self.rows} x {self.columns} pixels"


class View:
    """The records of some places of a source, one after the other."""

    def __init__(self, source: Source, places: Iterable[Place]) -> None:
        """Reads nothing.

        Args:
          source: of all records.
          places: those wanted, in the order wanted.
        """
        self._source, self.places = source, tuple(places)
        self._index = np.concatenate(
            [np.arange(0), *(np.arange(p.start, p.stop) for p in self.places)]
        )

    def __len__(self) -> int:
        """Records in all places."""
        return len(self._index)

    def __getitem__(self, index: int) -> Any:
        """The record at a place counted through the view."""
        return self._source[int(self._index[index])]

    def only(self, places: Iterable[Place]) -> "View":
        """A view of some of its places."""
        return View(self._source, places)

    @property
    def patients(self) -> list[str]:
        """Whose records it holds, sorted."""
        return sorted({place.patient for place in self.places})


def places_of(metadata: Mapping[str, Any], split: str) -> list[Place]:
    """The places of a TFDS split, as `recorded` kept them."""
    return [Place(*place) for place in metadata["places"].get(split, ())]


def recorded(
    metadata: dict[str, Any], split: str, records: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Numbers the records of a split, and keeps in the metadata what they are.

    Args:
      metadata: takes, under `places` and `sha256`, the split's `Place`s and the
        SHA-256 of its records.
      split: its name.
      records: of `datasets.pair`, volume by volume.

    Yields:
      Number and record, as TFDS takes them.
    """
    places: list[Place] = []
    total = hashlib.sha256()
    for number, record in enumerate(records):
        _hash_record(total, record)
        rows, columns = record["lq"].shape
        known = bool(np.all(np.isfinite(record["spacing_mm"])))
        about = (rows, columns, known)
        last = places[-1] if places else None
        if last and (*last[:2], *last[4:]) == (
            record["patient"],
            record["name"],
            *about,
        ):
            places[-1] = last._replace(stop=number + 1)
        else:
            who = (record["patient"], record["name"])
            places.append(Place(*who, number, number + 1, *about))
        yield number, record
    metadata.setdefault("places", {})[split] = [list(place) for place in places]
    metadata.setdefault("sha256", {})[split] = total.hexdigest()


def _hash_record(total: Any, record: Mapping[str, Any]) -> None:
    """Adds names, types, shapes and values."""
    for key, value in sorted(record.items()):
        if isinstance(value, str):
            total.update(f"{key} text {value}\n".encode())
        else:
            array = np.asarray(value)
            total.update(f"{key} {array.dtype.name} {array.shape}\n".encode())
            total.update(array.astype(array.dtype.newbyteorder("<")).tobytes())


def by_slice(
    places: Sequence[Place], fractions: Sequence[float]
) -> tuple[list[Place], ...]:
    """Each patient's records cut into a part for each fraction, in their order."""
    parts: tuple[list[Place], ...] = tuple([] for _ in fractions)
    by_patient = collections.defaultdict(list)
    for place in places:
        by_patient[place.patient].append(place)
    for own in by_patient.values():
        total, done = sum(place.records for place in own), 0
        edges = [0]
        for fraction in fractions:
            edges.append(round(total * fraction) + edges[-1])
        edges[-1] = total
        for place in own:
            for part, first, end in zip(parts, edges, edges[1:], strict=False):
                low, high = max(first - done, 0), min(end - done, place.records)
                if low < high:
                    start = place.start
                    part.append(place._replace(start=start + low, stop=start + high))
            done += place.records
    return parts


def most_common_size(places: Iterable[Place]) -> tuple[int, int]:
    """(rows, columns) of most records; of as many, the larger."""
    counts: collections.Counter[tuple[int, int]] = collections.Counter()
    for place in places:
        counts[place.rows, place.columns] += place.records
    return max(counts, key=lambda size: (counts[size], size))
