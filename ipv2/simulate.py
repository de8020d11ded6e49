"""Task simulate: CT at one dose in, the same CT at a lower dose out.

Reads `config.data.input`: a file, the folder of a DICOM series, or a folder of many
volumes. Writes each under its own name and in its own format below `config.output`,
and beside it NAME.json, which says how it was made. A volume whose NAME.json is there
is not made again, so an interrupted command goes on.

What a slice becomes:
- HU plus noise, see `kernels.photon_noise`. The noise follows from seed, volume name
  and slice number alone. A volume's name is its path below the input folder without
  the extension.
- Padding stays what it is: pixels of exactly -1024 HU (what readers make of padding)
  that are connected to the image's border through such pixels. Scanners leave out the
  corners outside the field of view, and there is no noise where nothing was measured.
- Clipped to the range that the input was stored in, see `stored_hu`.

With `config.calibrate` every volume's noise model is calibrated on the volume itself.
"""

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from common.config import ConfigDict
from common.errors import UserError
from ipv2 import settings
from ipv2.calibration import calibrate
from ipv2.ct_io import (
    PADDING_HU,
    Volume,
    at_dose,
    slice_number,
    with_hu,
    write_volume,
)
from ipv2.jobs import Count, run_jobs
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.scans import Job, check_scan, input_of, list_jobs, read_scan
from ipv2.stored_hu import padding, stored_range

# Raised when the same seed gives other noise: results of two are not mixed.
MODEL = "ipv2 low-dose simulation 1"


def simulate(config: ConfigDict, workdir: Path) -> None:
    """Simulates every volume of `config.data.input` into `config.output`.

    Args:
      config: of the recipe `simulate`; checked here.
      workdir: takes the embedded input and, without `config.output`, the result.

    Raises:
      UserError: the config is wrong, there is no volume, what lies in the output was
        made otherwise, or no volume could be simulated.
    """
    settings.check_simulate(config)
    source = input_of(config, workdir)
    output = Path(config.output) if config.output else workdir / "low_dose"
    jobs = list_jobs(source, output)
    done, there, skipped = run_jobs(
        "simulate",
        jobs,
        lambda job, replace, count: _simulate_one(job, config, replace, count),
        lambda job: _asked(job, config),
        section="config",
        overwrite=config.overwrite,
    )
    print(
        f"{done} volumes simulated at dose {config.dose:g}, {there} there before, "
        f"{skipped} skipped: {output}"
    )
    if not done and not there:
        raise UserError(f"{source}: no volume could be simulated; see the list above")


def _simulate_one(
    job: Job, config: ConfigDict, replace: bool, count: Count
) -> dict[str, Any]:
    """Reads, simulates and writes a volume; returns its noise model."""
    volume = read_scan(job.source, config)
    scan = scan_of(volume, config)
    result = simulate_volume(
        volume,
        scan,
        name=job.name,
        seed=config.seed,
        batch_size=config.batch_size,
        on_slices=count,
    )
    fraction = scan.dose / scan.input_dose
    result = dataclasses.replace(
        result,
        headers=tuple(at_dose(header, fraction) for header in result.headers),
    )
    write_volume(
        result,
        job.target,
        format=result.format,
        overwrite=replace,
        series_description=series_description(volume, scan),
        derivation_description=derivation_description(volume, scan, config.seed),
    )
    return {"scan": dataclasses.asdict(scan)}


def scan_of(volume: Volume, config: ConfigDict) -> DoseParams:
    """The noise model: the config's, or with `config.calibrate` the volume's own.

    Raises:
      UserError: the volume shows nothing to calibrate on.
    """
    asked = settings.simulated_dose_params(config)
    if not config.calibrate:
        return asked
    scanner = calibrate(
        volume.hu,
        volume.spacing_mm[2],
        dose=config.input_dose,
        electronic_variance=config.noise.electronic_variance,
        views=asked.views,
    )
    logging.info("\n  ".join([f"{volume.name}:", *scanner.describe()]))
    return scanner.dose_params(config.dose, config.input_dose)


def simulate_volume(
    volume: Volume,
    scan: DoseParams,
    *,
    name: str,
    seed: int,
    batch_size: int = 8,
    on_slices: Callable[[int], None] = lambda count: None,
) -> Volume:
    """The volume at the dose of `scan`.

    Args:
      volume: as `check_scan` wants it.
      scan: the noise model.
      name: of the volume; the noise of a slice follows from seed, name and slice alone.
      seed: of the noise.
      batch_size: slices at once; the last batch is filled up and cut, so that one size
        is compiled. Single slices go alone.
      on_slices: called with the number of slices that were just finished.

    Raises:
      UserError: the volume is not one that rays can be traced through.
    """
    check_scan(volume)
    count = len(volume.hu)
    size = 1 if count == 1 else batch_size
    numbers = [slice_number(volume, name, index) for index in range(count)]
    rng = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    rngs = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        rng, jnp.asarray(numbers, jnp.uint32)
    )
    low, high = stored_range(volume.hu)
    result = np.empty_like(volume.hu)
    for start in range(0, count, size):
        real = min(size, count - start)
        places = np.minimum(np.arange(start, start + size), count - 1)
        hu = jnp.asarray(volume.hu[places])
        try:
            noisy = simulate_low_dose(rngs[places], hu, volume.spacing_mm[2], scan)
        except ValueError as error:  # a fan's source within the image, for one
            raise UserError(f"{name}: {error}") from error
        noisy = jnp.where(padding(hu), PADDING_HU, jnp.clip(noisy, low, high))
        result[start : start + real] = noisy[:real]
        on_slices(real)
    return with_hu(volume, result)


def _asked(job: Job, config: ConfigDict) -> dict[str, Any]:
    """What decides the result, as its record holds it."""
    return {
        "model": MODEL,
        "source": str(job.source),
        "name": job.name,
        "seed": config.seed,
        "dose": config.dose,
        "input_dose": config.input_dose,
        "calibrate": config.calibrate,
        "noise": config.noise.to_dict(),
    }


def series_description(volume: Volume, scan: DoseParams) -> str:
    """SeriesDescription: the input's, cut so that the dose always fits."""
    own = f" (simulated {100 * scan.dose:g} % dose)"
    before = volume.description or volume.name
    return before[: 64 - len(own)] + own


def derivation_description(volume: Volume, scan: DoseParams, seed: int) -> str:
    """DerivationDescription: the model and all of its parameters."""
    fraction = scan.dose / scan.input_dose
    kernel = f"filter {scan.filter_name}, cutoff {scan.cutoff:g}"
    if scan.window:
        factors = ", ".join(f"{factor:.3g}" for factor in scan.window)
        kernel += f", times factors ({factors}) from 0 to Nyquist"
    if scan.source_distance_mm:
        kernel += f", fan beam from {scan.source_distance_mm:g} mm"
    return (
        f"{MODEL}: photon and electronic noise added to the source image. Dose "
        f"{scan.dose:g} of normal, source {scan.input_dose:g}; {scan.photons:g} "
        f"photons a ray at normal dose; electronic variance "
        f"{scan.electronic_variance:g}; water {scan.mu_water_per_mm:g} /mm; "
        f"{scan.views or max(volume.hu.shape[1:])} views; {kernel}; seed {seed}. Tube "
        f"current, exposure and CTDIvol are the source's times {fraction:g}."
    )
