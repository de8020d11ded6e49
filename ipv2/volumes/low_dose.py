"""Simulates a volume at a lower dose, slice by slice.

Photons of a slice are those of the scan times the slice's tube current over the series'
mean, where the file states it: a slice of half the current has half the photons.
The noise of a slice follows from seed, volume name and slice number alone. Padding is
kept. Results are clipped to the stored range of the volume, see `inference.stored_hu`.
"""

import math
import zlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from common.errors import UserError
from common.version import STATED
from ipv2.ct_io import Grid, Slice, SliceSource, slice_number
from ipv2.inference.stored_hu import restored, stored_range
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.volumes.naming import derived_series_description

# The number rises if the same seed gives other noise, so results are never mixed.
MODEL = "ipv2 low-dose simulation 2"


def simulated_slices(
    volume: SliceSource, scan: DoseParams, *, name: str, seed: int, batch_size: int = 8
) -> Iterator[tuple[Slice, np.ndarray]]:
    """Yields every slice of a volume with its simulation at the dose of `scan`.

    Args:
      volume: a volume that passes `volumes.checks`.
      scan: the noise model.
      name: name of the volume; it is part of the noise's seed.
      seed: seed of the noise.
      batch_size: slices per batch. The last batch is padded, so that one size is
        compiled; a volume of one slice is a batch of one.

    Yields:
      The slice as it was read, and the simulated HU (rows, columns).

    Raises:
      UserError: A slice is damaged, or rays cannot be traced through the volume.
    """
    count = volume.shape[0]
    size = 1 if count == 1 else batch_size
    numbers = _slice_numbers(volume, name)
    rng = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    limits = stored_range(*_extremes(volume))
    current = slice_currents(volume, count)
    for start in range(0, count, size):
        real = min(size, count - start)
        slices = [volume.read(index) for index in range(start, start + real)]
        filled = [slices[min(place, real - 1)].hu for place in range(size)]
        places = np.minimum(np.arange(start, start + size), count - 1)
        rngs = jax.vmap(jax.random.fold_in, (None, 0))(
            rng, jnp.asarray(numbers[places])
        )
        try:
            noisy = simulate_low_dose(
                rngs,
                jnp.asarray(np.stack(filled)),
                volume.spacing_mm[2],
                scan,
                relative_current=current[places],
            )
        except ValueError as error:  # a fan's source inside the image, for example
            raise UserError(f"{name}: {error}") from error
        for original, hu in zip(slices, np.asarray(noisy)[:real], strict=True):
            yield original, restored(original, hu, limits)


def slice_currents(volume: Grid, count: int) -> np.ndarray:
    """Returns (count,) tube currents over the series' mean, 1 if not stated."""
    if volume.relative_current is None:
        logging.log_first_n(
            logging.INFO,
            "%s: no tube current for every slice in its file; all slices get the same "
            "photons (said once)",
            1,
            volume.name,
        )
        return np.ones(count)
    return volume.relative_current


def _slice_numbers(volume: SliceSource, name: str) -> np.ndarray:
    """Returns the numbers that make the slices' noise differ, uint32."""
    count = volume.shape[0]
    if count == 1:
        return np.asarray([slice_number(volume.load(), name, 0)], np.uint32)
    return np.arange(count, dtype=np.uint32)


def _extremes(volume: SliceSource) -> tuple[float, float]:
    """Returns the lowest and the highest HU of a volume."""
    low, high = math.inf, -math.inf
    for index in range(volume.shape[0]):
        hu = volume.read(index).hu
        low, high = min(low, float(hu.min())), max(high, float(hu.max()))
    return low, high


def series_description(volume: Grid, scan: DoseParams) -> str:
    """Returns SeriesDescription: the input's, cut so that the dose fits."""
    return derived_series_description(volume, f"simulated {100 * scan.dose:g} % dose")


def derivation_description(
    scan: DoseParams,
    seed: int,
    shape: tuple[int, int, int],
    relative_current: np.ndarray | None = None,
) -> str:
    """Returns DerivationDescription: the model and all its parameters."""
    fraction = scan.dose / scan.input_dose
    kernel = f"filter {scan.filter_name}, cutoff {scan.cutoff:g}"
    if scan.window:
        factors = ", ".join(f"{factor:.3g}" for factor in scan.window)
        kernel += f", times factors ({factors}) from 0 to Nyquist"
    if scan.source_distance_mm:
        kernel += f", fan beam from {scan.source_distance_mm:g} mm"
    if scan.bowtie_mm:
        kernel += f", bowtie for {scan.bowtie_mm:g} mm of water"
    photons = f"{scan.photons:g} photons a ray at normal dose"
    current = np.ones(1) if relative_current is None else relative_current
    if current.min() < current.max():
        photons += (
            f" times each slice's tube current over the mean ({current.min():.3g} to "
            f"{current.max():.3g})"
        )
    return (
        f"{MODEL}, software version {STATED}: photon and electronic noise added to the "
        f"source image. Dose {scan.dose:g} of normal, source {scan.input_dose:g}; "
        f"{photons}; electronic variance "
        f"{scan.electronic_variance:g}; water {scan.mu_water_per_mm:g} /mm; "
        f"{scan.views or max(shape[1:])} views; {kernel}; seed {seed}. Tube "
        f"current, exposure and CTDIvol are the source's times {fraction:g}."
    )
