"""Every slice of a volume as it would be at a lower dose.

The noise of a slice follows from seed, volume name and slice number alone; padding
stays what it is; results are clipped to the range that the volume is stored in, see
`inference.stored_hu`.
"""

import math
import zlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from common.version import STATED
from ipv2.ct_io import Grid, Slice, SliceSource, slice_number
from ipv2.inference.stored_hu import restored, stored_range
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.volumes.naming import derived_series_description

# Raised when the same seed gives other noise: results of two are not mixed.
MODEL = "ipv2 low-dose simulation 1"


def simulated_slices(
    volume: SliceSource, scan: DoseParams, *, name: str, seed: int, batch_size: int = 8
) -> Iterator[tuple[Slice, np.ndarray]]:
    """Every slice of a volume and what it becomes at the dose of `scan`.

    Args:
      volume: as `scans.check_scan` wants it.
      scan: the noise model.
      name: of the volume; the noise of a slice follows from seed, name and slice alone.
      seed: of the noise.
      batch_size: slices at once; the last batch is filled up and cut, so that one size
        is compiled. Single slices go alone.

    Yields:
      The slice as it was read, and HU (rows, columns).

    Raises:
      UserError: a slice is damaged, or rays cannot be traced through the volume.
    """
    count = volume.shape[0]
    size = 1 if count == 1 else batch_size
    numbers = _slice_numbers(volume, name)
    rng = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    limits = stored_range(*_extremes(volume))
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
                rngs, jnp.asarray(np.stack(filled)), volume.spacing_mm[2], scan
            )
        except ValueError as error:  # a fan's source within the image, for one
            raise UserError(f"{name}: {error}") from error
        for original, hu in zip(slices, np.asarray(noisy)[:real], strict=True):
            yield original, restored(original, hu, limits)


def _slice_numbers(volume: SliceSource, name: str) -> np.ndarray:
    """What tells a slice's noise from that of others, uint32."""
    count = volume.shape[0]
    if count == 1:
        return np.asarray([slice_number(volume.load(), name, 0)], np.uint32)
    return np.arange(count, dtype=np.uint32)


def _extremes(volume: SliceSource) -> tuple[float, float]:
    """The lowest and the highest HU of a volume."""
    low, high = math.inf, -math.inf
    for index in range(volume.shape[0]):
        hu = volume.read(index).hu
        low, high = min(low, float(hu.min())), max(high, float(hu.max()))
    return low, high


def series_description(volume: Grid, scan: DoseParams) -> str:
    """SeriesDescription: the input's, cut so that the dose always fits."""
    return derived_series_description(volume, f"simulated {100 * scan.dose:g} % dose")


def derivation_description(
    scan: DoseParams, seed: int, shape: tuple[int, int, int]
) -> str:
    """DerivationDescription: the model and all of its parameters."""
    fraction = scan.dose / scan.input_dose
    kernel = f"filter {scan.filter_name}, cutoff {scan.cutoff:g}"
    if scan.window:
        factors = ", ".join(f"{factor:.3g}" for factor in scan.window)
        kernel += f", times factors ({factors}) from 0 to Nyquist"
    if scan.source_distance_mm:
        kernel += f", fan beam from {scan.source_distance_mm:g} mm"
    return (
        f"{MODEL}, software version {STATED}: photon and electronic noise added to the "
        f"source image. Dose {scan.dose:g} of normal, source {scan.input_dose:g}; "
        f"{scan.photons:g} photons a ray at normal dose; electronic variance "
        f"{scan.electronic_variance:g}; water {scan.mu_water_per_mm:g} /mm; "
        f"{scan.views or max(shape[1:])} views; {kernel}; seed {seed}. Tube "
        f"current, exposure and CTDIvol are the source's times {fraction:g}."
    )
