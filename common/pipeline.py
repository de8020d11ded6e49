"""Batches of records with grain: draw, number, shard, batch, prefetch.

Every element has `draw`, its position in the endless shuffled stream. The stream
depends only on the seed. So `draw` names the same example for any batch size and any
number of devices and processes. Random keys are derived from it.
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
    """Random access to records, as in TFDS and grain."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Record at an index: a dict."""
        ...


def draws(source: Source, *, seed: int) -> grain.MapDataset:
    """Returns the endless stream of records, shuffled in each epoch.

    Args:
      source: random access to records: dicts of arrays, each of one shape.
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
    """Returns this process's endless batches, which threads read ahead.

    Args:
      source: random access to records.
      seed: of the order.
      batch_size: examples of this process in a step.
      transform: applied to each record.
      threads: number of threads that read ahead.

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
    """Yields `read(item)` in the order of the items; threads read the next ones.

    At most as many results wait as there are threads, so that memory stays bounded. An
    error of `read` is raised in the order of the items.

    Args:
      read: called in a thread.
      items: taken one by one, like the results.
      threads: number of threads that read.
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
