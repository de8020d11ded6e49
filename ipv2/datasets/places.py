"""Places of volumes in a dataset, and views of some of its records.

A place is a run of consecutive records of one pair of volumes. A dataset's metadata
hold the places of each TFDS split, in order, so records can be chosen without reading
them.
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
      patient: name of the patient.
      name: name of the pair.
      start: number of the first record.
      stop: number after the last record.
      rows: rows of the slices.
      columns: columns of the slices.
      spacing_known: whether the records' `spacing_mm` is known, not NaN.
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
        """Number of records."""
        return self.stop - self.start

    @property
    def size(self) -> str:
        """Size of the slices, in words."""
        return f"{self.rows} x {self.columns} pixels"


class View:
    """The records of some places of a source, one after the other."""

    def __init__(self, source: Source, places: Iterable[Place]) -> None:
        """Reads nothing.

        Args:
          source: all records.
          places: places of the view, in order.
        """
        self._source, self.places = source, tuple(places)
        self._index = np.concatenate(
            [np.arange(0), *(np.arange(p.start, p.stop) for p in self.places)]
        )

    def __len__(self) -> int:
        """Returns the number of records in all places."""
        return len(self._index)

    def __getitem__(self, index: int) -> Any:
        """Returns the record with this number in the view."""
        return self._source[int(self._index[index])]

    def only(self, places: Iterable[Place]) -> "View":
        """Returns a view of some of the places."""
        return View(self._source, places)

    @property
    def patients(self) -> list[str]:
        """Names of the patients in the view, sorted."""
        return sorted({place.patient for place in self.places})


def places_of(metadata: Mapping[str, Any], split: str) -> list[Place]:
    """Returns the places of a TFDS split, as `recorded` stored them."""
    return [Place(*place) for place in metadata["places"].get(split, ())]


def recorded(
    metadata: dict[str, Any], split: str, records: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the numbered records of a split, and stores their places in the metadata.

    Args:
      metadata: receives the split's `Place`s under `places` and the SHA-256 of its
        records under `sha256`.
      split: name of the split.
      records: records of `datasets.pair`, volume by volume.

    Yields:
      (number, record), as TFDS expects.
    """
    places: list[Place] = []
    total = hashlib.sha256()
    for number, record in enumerate(records):
        _hash_record(total, record)
        rows, columns = record["lq"].shape
        place = Place(
            patient=record["patient"],
            name=record["name"],
            start=places[-1].start if places else number,
            stop=number + 1,
            rows=rows,
            columns=columns,
            spacing_known=bool(np.all(np.isfinite(record["spacing_mm"]))),
        )
        if places and place == places[-1]._replace(stop=number + 1):
            places[-1] = place
        else:
            places.append(place._replace(start=number))
        yield number, record
    metadata.setdefault("places", {})[split] = [list(place) for place in places]
    metadata.setdefault("sha256", {})[split] = total.hexdigest()


def _hash_record(total: Any, record: Mapping[str, Any]) -> None:
    """Adds a record's keys, types, shapes and values to a hash."""
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
    """Cuts each patient's records, in order, into one part per fraction."""
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
    """Returns (rows, columns) of most records; the larger size in a tie."""
    counts: collections.Counter[tuple[int, int]] = collections.Counter()
    for place in places:
        counts[place.rows, place.columns] += place.records
    return max(counts, key=lambda size: (counts[size], size))
