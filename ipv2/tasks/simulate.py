"""Task simulate: CT at one dose in, the same CT at a lower dose out.

Reads `config.data.input`: a file, the folder of a DICOM series, or a folder of many
volumes. Writes each under its own name and in its own format below `config.output`,
and beside it NAME.json, which says how it was made. A volume that was made as it is
asked for now is not made again, so an interrupted command goes on; see `jobs` for what
else may lie there.

What a slice becomes:
- HU plus noise, see `kernels.photon_noise`. The noise follows from seed, volume name
  and slice number alone. A volume's name is its path below the input folder without
  the extension.
- Padding stays what it is, see `stored_hu.restored`: scanners leave out the corners
  outside the field of view, and there is no noise where nothing was measured.
- Clipped to the range that the input's volume is stored in, see `stored_hu`.

Slices are read twice, for that range and for the work, and written one after the
other, so memory does not grow with the series; see `ct_io.reading` for the rare formats
where it does. With `config.calibrate` every volume's noise model is calibrated on
slices of the volume itself, evenly spaced and no more than 48.
"""

import dataclasses
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from common.config import ConfigDict
from common.errors import UserError
from common.version import STATED, VERSION
from ipv2.calibration import calibrate
from ipv2.ct_io import Grid, Slice, SliceSource, at_dose, slice_number, slice_writer
from ipv2.inference.stored_hu import restored, stored_range
from ipv2.jobs.job import Job
from ipv2.jobs.records import Asked
from ipv2.jobs.run import (
    Destination,
    Work,
    conclude,
    run_jobs,
)
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.tasks import settings
from ipv2.tasks.scans import (
    evenly_spaced,
    identities,
    input_of,
    list_jobs,
    open_scan,
    original_description,
    reading_of,
    settings_of,
    written_as,
)

# Raised when the same seed gives other noise: results of two are not mixed.
MODEL = "ipv2 low-dose simulation 1"

# More than a calibration looks at.
_CALIBRATION_SLICES = 48


def simulate(config: ConfigDict, workdir: Path) -> None:
    """Simulates every volume of `config.data.input` into `config.output`.

    Args:
      config: of the recipe `simulate`; checked here.
      workdir: takes the embedded input and, without `config.output`, the result.

    Raises:
      UserError: the config is wrong, there is no volume, what lies in the output was
        made otherwise, or no volume could be simulated.
      Incomplete: `config.strict`, and a volume was skipped.
    """
    settings.check_simulate(config)
    source = input_of(config, workdir)
    output = Path(config.output) if config.output else workdir / "low_dose"
    jobs, unused = list_jobs(source, output)
    tally = run_jobs(
        "simulate",
        jobs,
        lambda job, work: _simulate_one(job, work, config),
        lambda job: _asked(job, config),
        Destination(
            folder=output.resolve(), section="config", overwrite=config.overwrite
        ),
        unused=unused,
    )
    print(
        f"{tally.done} volumes simulated at dose {config.dose:g}, {tally.there} there "
        f"before, {tally.skipped} skipped: {output}"
    )
    conclude(tally, f"{source}: no volume could be simulated", strict=config.strict)


def _asked(job: Job, config: ConfigDict) -> Asked:
    """What decides the result of one volume."""
    terms, leave = reading_of(settings.read_options(config), job.sources, mm=True)
    keys = ("seed", "dose", "input_dose", "calibrate", "noise")
    return Asked(
        {
            "task": MODEL,
            "software_version": VERSION,
            "name": job.name,
            **identities(job.sources, ["source"]),
            **settings_of(config, *keys),
            **terms,
            **written_as(job, config),
        },
        leave,
    )


def _simulate_one(job: Job, work: Work, config: ConfigDict) -> dict[str, Any]:
    """Reads, simulates and writes a volume; returns its noise model."""
    (source,), (place,) = job.sources, work.places
    with open_scan(source, config) as volume:
        work.leave_out(volume.left_out)
        scan = scan_of(volume, config)
        fraction = scan.dose / scan.input_dose
        with slice_writer(
            volume,
            volume.shape,
            place,
            format=volume.format,
            multi_frame=config.data.multiframe,
            series_description=series_description(volume, scan),
            derivation_description=derivation_description(
                scan, config.seed, volume.shape
            ),
        ) as write:
            for original, hu in simulated_slices(
                volume,
                scan,
                name=job.name,
                seed=config.seed,
                batch_size=config.batch_size,
            ):
                header = original.header
                write(hu, None if header is None else at_dose(header, fraction))
                work.count(1)
    return {"sources": [str(source)], "scan": dataclasses.asdict(scan)}


def scan_of(volume: SliceSource, config: ConfigDict) -> DoseParams:
    """The noise model: the config's, or with `config.calibrate` the volume's own.

    Raises:
      UserError: the volume shows nothing to calibrate on.
    """
    asked = settings.simulated_dose_params(config)
    if not config.calibrate:
        return asked
    places = evenly_spaced(volume.shape[0], _CALIBRATION_SLICES)
    scanner = calibrate(
        np.stack([volume.read(int(place)).hu for place in places]),
        volume.spacing_mm[2],
        dose=config.input_dose,
        electronic_variance=config.noise.electronic_variance,
        views=asked.views,
    )
    logging.info("\n  ".join([f"{volume.name}:", *scanner.describe()]))
    return scanner.dose_params(config.dose, config.input_dose)


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
    rngs = _slice_rngs(volume, name, seed)
    limits = stored_range(*_extremes(volume))
    for start in range(0, count, size):
        real = min(size, count - start)
        slices = [volume.read(index) for index in range(start, start + real)]
        filled = [slices[min(place, real - 1)].hu for place in range(size)]
        places = np.minimum(np.arange(start, start + size), count - 1)
        try:
            noisy = simulate_low_dose(
                rngs[places], jnp.asarray(np.stack(filled)), volume.spacing_mm[2], scan
            )
        except ValueError as error:  # a fan's source within the image, for one
            raise UserError(f"{name}: {error}") from error
        for original, hu in zip(slices, np.asarray(noisy)[:real], strict=True):
            yield original, restored(original, hu, limits)


def _slice_rngs(volume: SliceSource, name: str, seed: int) -> jax.Array:
    """A key for each slice."""
    numbers = range(volume.shape[0])
    if len(numbers) == 1:
        numbers = [slice_number(volume.load(), name, 0)]
    rng = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        rng, jnp.asarray(numbers, jnp.uint32)
    )


def _extremes(volume: SliceSource) -> tuple[float, float]:
    """The lowest and the highest HU of a volume."""
    low, high = math.inf, -math.inf
    for index in range(volume.shape[0]):
        hu = volume.read(index).hu
        low, high = min(low, float(hu.min())), max(high, float(hu.max()))
    return low, high


def series_description(volume: Grid, scan: DoseParams) -> str:
    """SeriesDescription: the input's, cut so that the dose always fits."""
    own = f" (simulated {100 * scan.dose:g} % dose)"
    before = original_description(volume)
    return before[: 64 - len(own)] + own


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
