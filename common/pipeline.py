"""Batches from records, by grain: draw, number, shard, batch, prefetch.

Every element drawn carries `draw`, its place in the endless shuffled stream. The
stream depends on the seed alone, so `draw` is the same example whatever the batch
size and the number of devices and processes; random keys are derived from it.
"""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import grain
import jax
import numpy as np

Record = dict[str, Any]
S = TypeVar("S")
T = TypeVar("T")


@runtime_checkable
class Source(Protocol):
    """Random access to records, as TFDS and grain have it."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int) -> Any:
        """The record at a place: a dict."""
        ...


def draws(source: Source, *, seed: int) -> grain.MapDataset:
    """Returns the endless stream of records, shuffled anew each epoch.

    Args:
      source: random access to records; dicts of arrays of one shape each.
      seed: of the order.

    Returns:
      Element i is a record with `draw`, uint32, equal to i.
    """
    stream = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    return stream.map_with_index(lambda i, x: {**x, "draw": np.uint32(i)})


def train_batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    transform: Callable[[Record], Record] | None = None,
    threads: int = 2,
) -> grain.DatasetIterator:
    """Returns this process's endless batches, read ahead in threads.

    Args:
      source: random access to records.
      seed: of the order.
      batch_size: examples of this process in a step.
      transform: applied to each record.
      threads: that read ahead.

    Returns:
      An iterator of dicts of arrays `b ...`, with `get_state` and `set_state`.
    """
    stream = draws(source, seed=seed)
    stream = stream[jax.process_index() :: jax.process_count()]
    if transform is not None:
        stream = stream.map(transform)
    batches = stream.batch(batch_size, drop_remainder=True)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(batches.to_iter_dataset(options))


def read_ahead(
    read: Callable[[S], T], items: Iterable[S], *, threads: int = 2
) -> Iterator[T]:
    """Yields `read(item)` in the order of the items, the next ones read in threads.

    As many results wait as there are threads, so that memory stays bounded. What a
    `read` raises is raised in its place.

    Args:
      read: called in a thread.
      items: taken one by one, as results are.
      threads: that read.
    """
    waiting: collections.deque[concurrent.futures.Future[T]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
