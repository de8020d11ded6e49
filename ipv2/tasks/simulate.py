"""Task simulate: makes CT of a lower dose from CT.

Reads `config.data.input`: a file, the folder of a DICOM series, or a folder of many
volumes. Writes each volume below `config.output` with its name and format, and
NAME.json beside it, which says how it was made. A volume that was already made with the
same settings is not made again, so an interrupted command goes on. `jobs` says what
happens with other files there.

A slice of the result:
- It has the input's HU plus noise, see `kernels.photon_noise`. In a DICOM series that
  states the tube current of each slice, the slice's photons follow it. The noise
  follows from seed, volume name and slice number alone. A volume's name is its path
  below the input folder without the extension.
- Padding stays as it is, see `stored_hu.restored`: scanners leave out the corners
  outside the field of view, and there is no noise where nothing was measured.
- HU are clipped to the range that the input's volume is stored in, see `stored_hu`.

The task reads every slice twice, for that range and for the noise, and writes one after
the other. So memory does not grow with the series, but for a few formats that
`ct_io.reading` names. With `config.calibrate` the noise model of every volume is
calibrated on at most 48 evenly spaced slices of the volume.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from common.config import ConfigDict
from ipv2.calibration import calibrate
from ipv2.ct_io import SliceSource, at_dose, slice_writer
from ipv2.jobs.job import Job
from ipv2.jobs.run import Destination, Work, conclude, run_jobs
from ipv2.kernels.photon_noise import DoseParams
from ipv2.tasks.check import check_simulate_config
from ipv2.tasks.job_settings import SimulateSettings, simulate_settings
from ipv2.tasks.scans import evenly_spaced, input_of, list_jobs, open_scan
from ipv2.tasks.terms import job_terms
from ipv2.volumes.low_dose import (
    MODEL,
    derivation_description,
    series_description,
    simulated_slices,
    slice_currents,
)

# More than a calibration uses.
_CALIBRATION_SLICES = 48


def simulate(config: ConfigDict, workdir: Path) -> None:
    """Simulates every volume of `config.data.input` into `config.output`.

    Args:
      config: the config of the recipe `simulate`; checked here.
      workdir: the folder for the embedded input and, without `config.output`, for the
        result.

    Raises:
      UserError: the config is wrong, there is no volume, a file in the output was made
        in another way, or no volume could be simulated.
      Incomplete: `config.strict`, and a volume was skipped.
    """
    check_simulate_config(config)
    source = input_of(config, workdir)
    output = Path(config.output) if config.output else workdir / "low_dose"
    jobs, unused = list_jobs(source, output)
    settings = simulate_settings(config)
    tally = run_jobs(
        "simulate",
        jobs,
        lambda job, work: _simulate_one(job, work, settings, config.batch_size),
        lambda job: job_terms(
            MODEL, job, settings.by_key(), settings.files, needs_spacing=True
        ),
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


def _simulate_one(
    job: Job, work: Work, settings: SimulateSettings, batch_size: int
) -> dict[str, Any]:
    """Reads, simulates and writes a volume; returns its noise model."""
    (source,), (place,) = job.sources, work.places
    with open_scan(source, settings.files.reading) as volume:
        work.leave_out(volume.left_out)
        noise = noise_of(volume, settings)
        fraction = noise.dose / noise.input_dose
        with slice_writer(
            volume,
            volume.shape,
            place,
            format=volume.format,
            multi_frame=settings.files.multi_frame,
            series_description=series_description(volume, noise),
            derivation_description=derivation_description(
                noise, settings.seed, volume.shape, volume.relative_current
            ),
        ) as write:
            for original, hu in simulated_slices(
                volume,
                noise,
                name=job.name,
                seed=settings.seed,
                batch_size=batch_size,
            ):
                header = original.header
                write(hu, None if header is None else at_dose(header, fraction))
                work.count(1)
    made: dict[str, Any] = {"sources": [str(source)], "scan": dataclasses.asdict(noise)}
    if (current := volume.relative_current) is not None:
        made["relative_current"] = [float(current.min()), float(current.max())]
    return made


def noise_of(volume: SliceSource, settings: SimulateSettings) -> DoseParams:
    """Returns the noise model: the settings', or the one calibrated on the volume.

    Raises:
      UserError: the volume shows nothing to calibrate on.
    """
    given = settings.noise
    if not settings.calibrate:
        return given
    places = evenly_spaced(volume.shape[0], _CALIBRATION_SLICES)
    scanner = calibrate(
        np.stack([volume.read(int(place)).hu for place in places]),
        volume.spacing_mm[2],
        dose=given.input_dose,
        electronic_variance=given.electronic_variance,
        views=given.views,
        relative_current=slice_currents(volume, volume.shape[0])[places],
    )
    logging.info("\n  ".join([f"{volume.name}:", *scanner.describe()]))
    return scanner.dose_params(given.dose, given.input_dose)
