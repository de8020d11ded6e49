"""Purifies two volumes slice by slice."""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from ipv2.ct_io import Volume, with_hu
from ipv2.purification.airways import AirSlices
from ipv2.purification.purify import (
    PurifyParams,
    air_of_pair,
    lungs_of_pair,
    purify,
)
from ipv2.training.train_step import example_rngs


class PurifiedVolumes(NamedTuple):
    """An aligned pair, and the mask of its blend.

    Attributes:
      lq_bar: training input, on the grid of lq.
      gt_bar: test label, on the grid of gt.
      lung_mask: 1 where the blend takes more of the other volume than of its own.
    """

    lq_bar: Volume
    gt_bar: Volume
    lung_mask: Volume


def purified_pair(
    lq: Volume,
    gt: Volume,
    params: PurifyParams,
    *,
    name: str,
    seed: int,
    numbers: Sequence[int],
    batch_size: int = 4,
    on_slices: Callable[[int], None] = lambda count: None,
) -> PurifiedVolumes:
    """Purifies two volumes with matching slices.

    Args:
      lq: low-dose volume.
      gt: normal-dose volume with the same number of slices.
      params: parameters of the purification, in the volumes' unit. With
        `anatomy.volume` the slices must be in order.
      name: name of the pair. A slice's noise follows from seed, name and number alone.
      seed: seed of the noise.
      numbers: a number for each slice, for its noise.
      batch_size: slices per batch; the last batch is padded, so that one size is
        compiled.
      on_slices: called with the number of slices that were just finished.

    Raises:
      UserError: The purification does not accept the images.
    """
    number = np.uint32(zlib.crc32(name.encode()))
    draws = number + np.asarray(numbers, np.uint32)
    batches = []
    try:
        for batch in _batches(lq, gt, seed, draws, params, batch_size):
            batches.append(batch)
            on_slices(len(batch[0]))
    except ValueError as error:  # images that a noise model refuses, for example
        raise UserError(f"{name}: {error}") from error
    lq_bar, gt_bar, weight = (
        np.concatenate(parts) for parts in zip(*batches, strict=True)
    )
    return PurifiedVolumes(
        lq_bar=with_hu(lq, lq_bar),
        gt_bar=with_hu(gt, gt_bar),
        lung_mask=dataclasses.replace(with_hu(lq, weight > 0.5), unit="mask"),
    )


def _batches(
    lq: Volume,
    gt: Volume,
    seed: int,
    draws: np.ndarray,
    params: PurifyParams,
    size: int,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields purified batches without their padding; all have one compiled size."""
    spacing_mm = jnp.asarray(lq.spacing_mm[1:], jnp.float32)
    in_volume = params.anatomy.volume and params.variant == "robust"
    lungs = _lungs(lq, gt, params, size) if in_volume else None
    for places, real in _places(len(lq.hu), size):
        low, normal = (jnp.asarray(volume.hu[places]) for volume in (lq, gt))
        rngs = example_rngs(seed, jnp.asarray(draws[places]))
        own = None if lungs is None else jnp.asarray(lungs[:, places])
        pair = purify(rngs, low, normal, spacing_mm, params, own)
        yield tuple(np.asarray(array)[:real] for array in pair)


def _lungs(lq: Volume, gt: Volume, params: PurifyParams, size: int) -> np.ndarray:
    """Returns the lungs of both volumes, from batches of `size` slices.

    What it keeps of a slice of 512 x 512 pixels takes 72 KB, a fourteenth of its HU.
    """
    parts = []
    for places, real in _places(len(lq.hu), size):
        low, normal = (jnp.asarray(volume.hu[places]) for volume in (lq, gt))
        found = air_of_pair(low, normal, params)
        parts.append(tuple(np.asarray(array)[:, :real] for array in found))
    joined = (jnp.asarray(np.concatenate(p, axis=1)) for p in zip(*parts, strict=True))
    return np.asarray(lungs_of_pair(AirSlices(*joined), params))


def _places(count: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the slices of each batch, the last one repeated, and how many are real."""
    for start in range(0, count, size):
        places = np.minimum(np.arange(start, start + size), count - 1)
        yield places, min(size, count - start)
