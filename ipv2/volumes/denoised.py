"""Denoises a volume slice by slice, within the stored range of its file."""

import collections
from collections.abc import Iterator

import numpy as np

from common.errors import UserError
from common.version import STATED, VERSION
from ipv2.ct_io import Grid, Slice, SliceSource
from ipv2.inference.apply import BatchApplier
from ipv2.inference.network import Network
from ipv2.inference.stored_hu import restored, stored_range
from ipv2.inference.tiling import Tiling
from ipv2.volumes.naming import derived_series_description
from ipv2.volumes.noise_check import NoiseCheck

# The number rises if the same network gives other results, so they are never mixed.
MODEL = "ipv2 denoising 1"


def denoised_slices(
    volume: SliceSource, applier: BatchApplier, network: Network
) -> Iterator[tuple[Slice, np.ndarray]]:
    """Yields every slice of a volume with its denoised HU (rows, columns).

    At the end the log warns if the volume's noise is outside of the training's range.

    Raises:
      UserError: A slice is damaged, the volume is not in HU, or a result is not finite.
    """
    waiting: collections.deque[Slice] = collections.deque()
    noise = NoiseCheck(network.manifest, volume.shape[0])

    def read() -> Iterator[np.ndarray]:
        for index in range(volume.shape[0]):
            waiting.append(volume.read(index))
            noise.add(waiting[-1].hu)
            yield waiting[-1].hu

    for index, result in enumerate(applier(read(), volume.shape)):
        if not np.isfinite(result).all():
            raise UserError(
                f"{volume.name}: the network's result is not finite (slice {index}). "
                "Check the input for values that are not HU, or train again."
            )
        original = waiting.popleft()
        limits = stored_range(float(original.hu.min()), float(original.hu.max()))
        yield original, restored(original, result, limits)
    noise.warn(volume.name)


def series_description(grid: Grid, network: Network) -> str:
    """Returns SeriesDescription: the input's, cut so that network and version fit."""
    own = f"denoised: {network.name} {network.sha256[:8]}, ipv2 {VERSION}"
    return derived_series_description(grid, own)


def derivation_description(network: Network, tiling: Tiling) -> str:
    """Returns DerivationDescription: the network and how it was applied."""
    tiles = (
        f"tiles of {tiling.tile} pixels, overlap {tiling.overlap}"
        if tiling.tile
        else "whole slices"
    )
    return (
        f"{MODEL}, software version {STATED}: {network.describe()}; applied to {tiles}"
    )
