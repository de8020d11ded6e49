"""Applies a network to a stream of slices, in batches, on all devices."""

import abc
import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32

from common.devices import pmap_eval, replicate, shard_batch
from common.typing import PyTree
from ipv2.inference.tiling import (
    Tiling,
    count_tiles,
    cut,
    join,
)

Denoise = Callable[[PyTree, Any], Any]


class BatchApplier(abc.ABC):
    """Denoises the slices of volumes as they arrive, and keeps only a few in memory.

    Slices become stacks with their neighbours, stacks are cut into tiles, and tiles are
    denoised in batches.

    A result depends on the slice and its neighbours alone. The batch size can only
    change the order of sums, and so the last bits of float32, far below the resolution
    of HU files.

    Attributes:
      tiling: how stacks are cut.
    """

    def __init__(
        self, *, channels: int, batch_size: int, devices: int, tiling: Tiling
    ) -> None:
        """Describes batches.

        Args:
          channels: c, neighbouring slices in a stack, odd.
          batch_size: tiles per batch over all devices, rounded up to a multiple of
            their number. An image that is not cut is one tile.
          devices: number of devices.
          tiling: how stacks are cut.
        """
        self._channels = channels
        self._smallest_batch = devices
        self._batch_size = -(-batch_size // devices) * devices
        self.tiling = tiling

    @abc.abstractmethod
    def start(self, tiles: list[Float[np.ndarray, "h w c"]], size: int) -> Any:
        """Denoises a batch of at most `size` tiles in HU.

        Returns:
          Images in HU that `np.asarray` makes `... h w`, the tiles' ones first.
        """

    def __call__(
        self, slices: Iterable[Float32[np.ndarray, "h w"]], shape: tuple[int, int, int]
    ) -> Iterator[Float32[np.ndarray, "h w"]]:
        """Yields the denoised slices of one volume, in order.

        Args:
          slices: HU, from the volume's first to its last.
          shape: (slices, h, w) of the volume.

        Yields:
          A slice in HU, as soon as its last tile is done.
        """
        tiles_a_slice = count_tiles(shape[1:], self.tiling)
        # A volume of one slice, such as a PNG, is not padded to a whole batch.
        few = shape[0] * tiles_a_slice <= self._smallest_batch
        tiles = (
            tile
            for stack in stacks(slices, self._channels)
            for tile in cut(stack, self.tiling)
        )
        size = self._smallest_batch if few else self._batch_size
        results = self._results(tiles, size)
        while parts := list(itertools.islice(results, tiles_a_slice)):
            yield join(parts, shape[1:], self.tiling)

    def _results(
        self, tiles: Iterator[Float[np.ndarray, "h w c"]], size: int
    ) -> Iterator[Float[np.ndarray, "h w"]]:
        running: tuple[Any, int] | None = None
        while parts := list(itertools.islice(tiles, size)):
            started = self.start(parts, size)
            if running is not None:
                yield from _fetch(*running)
            running = started, len(parts)
        if running is not None:
            yield from _fetch(*running)


class Applier(BatchApplier):
    """Applies a network of JAX, in batches of one size, on all devices.

    One batch runs on the devices while the next one is read. The number of devices can
    change no more than the batch size can.
    """

    def __init__(
        self,
        denoise: Denoise,
        variables: PyTree,
        *,
        channels: int,
        batch_size: int,
        tiling: Tiling,
    ) -> None:
        """Puts the variables on the devices.

        Args:
          denoise: (variables, `b h w c` HU) -> `b h w` HU, traceable.
          variables: the first argument of `denoise`.
          channels: see `BatchApplier`.
          batch_size: see `BatchApplier`.
          tiling: how stacks are cut.
        """
        super().__init__(
            channels=channels,
            batch_size=batch_size,
            devices=jax.local_device_count(),
            tiling=tiling,
        )
        self._apply = _mapped(denoise)
        self._variables = replicate(variables)

    def start(self, tiles: list[Float[np.ndarray, "h w c"]], size: int) -> jax.Array:
        """Starts a batch, which copies of its last tile fill."""
        filled = np.stack(tiles + [tiles[-1]] * (size - len(tiles)))
        return self._apply(self._variables, shard_batch({"x": filled}))


@functools.cache
def _mapped(denoise: Denoise) -> Callable[[PyTree, PyTree], jax.Array]:
    """Returns `denoise` over all devices; cached, so that it is compiled once."""
    return pmap_eval(lambda variables, shard: denoise(variables, shard["x"]))


def _fetch(result: Any, count: int) -> Iterator[Float[np.ndarray, "h w"]]:
    """Yields the first `count` images of a result `... h w`."""
    array = np.asarray(result)
    yield from array.reshape(-1, *array.shape[-2:])[:count]


def stacks(
    slices: Iterable[Float[np.ndarray, "h w"]], channels: int
) -> Iterator[Float[np.ndarray, "h w c"]]:
    """Yields every slice with its neighbours; the end slices repeat at the ends."""
    window: collections.deque[np.ndarray] = collections.deque(maxlen=channels)
    for image in _with_ends(slices, channels // 2):
        window.append(image)
        if len(window) == channels:
            yield np.stack(window, axis=-1)


def _with_ends(slices: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yields the slices, with `count` further copies of the first and of the last."""
    left = iter(slices)
    for image in itertools.islice(left, 1):
        yield from itertools.repeat(image, count + 1)
        for image in left:
            yield image
        yield from itertools.repeat(image, count)
