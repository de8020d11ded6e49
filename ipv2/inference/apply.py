"""A network applied to a stream of slices, in batches of one size, on all devices."""

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


class Applier:
    """Denoises the slices of volumes as they come, and holds few of them.

    Slices become stacks with their neighbours, stacks become tiles, and tiles are
    worked on in batches. One batch runs on the devices while the next one is read.

    What a slice becomes follows from it and its neighbours. The batch size and the
    number of devices change the order of sums at most, that is the last bits of
    float32: far below the HU that files hold.

    Attributes:
      tiling: how slices are cut.
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
          variables: its first argument.
          channels: c, neighbouring slices in a stack, odd.
          batch_size: tiles at once over all devices, whose multiple it is made; an
            image that stays whole is one tile.
          tiling: of the stacks.
        """
        devices = jax.local_device_count()
        self._apply = _mapped(denoise)
        self._variables = replicate(variables)
        self._channels = channels
        self._few = devices
        self._batch_size = -(-batch_size // devices) * devices
        self.tiling = tiling

    def __call__(
        self, slices: Iterable[Float32[np.ndarray, "h w"]], shape: tuple[int, int, int]
    ) -> Iterator[Float32[np.ndarray, "h w"]]:
        """The denoised slices of one volume, in their order.

        Args:
          slices: HU, from the volume's first to its last.
          shape: (slices, h, w) of the volume.

        Yields:
          HU, as soon as a slice's last tile is done.
        """
        tiles_a_slice = count_tiles(shape[1:], self.tiling)
        # A volume of one slice, such as a PNG, is not filled up to a whole batch.
        few = shape[0] * tiles_a_slice <= self._few
        tiles = (
            tile
            for stack in stacks(slices, self._channels)
            for tile in cut(stack, self.tiling)
        )
        results = self._results(tiles, self._few if few else self._batch_size)
        while parts := list(itertools.islice(results, tiles_a_slice)):
            yield join(parts, shape[1:], self.tiling)

    def _results(
        self, tiles: Iterator[Float[np.ndarray, "h w c"]], size: int
    ) -> Iterator[Float[np.ndarray, "h w"]]:
        running: tuple[jax.Array, int] | None = None
        while parts := list(itertools.islice(tiles, size)):
            filled = np.stack(parts + [parts[-1]] * (size - len(parts)))
            started = self._apply(self._variables, shard_batch({"x": filled}))
            if running is not None:
                yield from _taken(*running)
            running = started, len(parts)
        if running is not None:
            yield from _taken(*running)


@functools.cache
def _mapped(denoise: Denoise) -> Callable[[PyTree, PyTree], jax.Array]:
    """The function over all devices; the same for the same one, compiled once."""
    return pmap_eval(lambda variables, shard: denoise(variables, shard["x"]))


def _taken(result: jax.Array, count: int) -> Iterator[Float[np.ndarray, "h w"]]:
    """The first `count` images of a result `devices b h w`."""
    array = np.asarray(result)
    yield from array.reshape(-1, *array.shape[2:])[:count]


def stacks(
    slices: Iterable[Float[np.ndarray, "h w"]], channels: int
) -> Iterator[Float[np.ndarray, "h w c"]]:
    """Every slice with its neighbours; the first and the last repeat at the ends."""
    window: collections.deque[np.ndarray] = collections.deque(maxlen=channels)
    for image in _with_ends(slices, channels // 2):
        window.append(image)
        if len(window) == channels:
            yield np.stack(window, axis=-1)


def _with_ends(slices: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The slices, with the first and the last repeated `count` times more."""
    left = iter(slices)
    for image in itertools.islice(left, 1):
        yield from itertools.repeat(image, count + 1)
        for image in left:
            yield image
        yield from itertools.repeat(image, count)
