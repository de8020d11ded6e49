"""Task calibrate: which scanner do these scans come from, in the simulation's terms.

Slices of all volumes of `config.data.input` (one scanner and protocol) are calibrated
together; with `config.data.low`, the same patients at `config.data.low_dose` under the
same names, as pairs, which also tells the electronic noise. Prints what was found, how
sure it is, and the overrides with which `simulate` and the training recipes use it;
writes the same to `workdir/calibration.json`.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from common.config import ConfigDict
from common.errors import UserError
from common.files import write_atomically
from common.progress import Progress
from ipv2 import settings
from ipv2.calibration import Calibration, calibrate
from ipv2.ct_io import Skipped, Volume, describe_skipped, match_slices
from ipv2.scans import Job, input_of, list_jobs, read_scan

# Read from at most so many volumes, and kept of each so many slices that all together
# come to more than a calibration looks at.
_VOLUMES = 24
_SLICES = 48


def calibrate_scans(config: ConfigDict, workdir: Path) -> None:
    """Calibrates on `config.data.input`, and on `config.data.low` where it is given.

    Args:
      config: of the recipe `simulate`; checked here.
      workdir: takes `calibration.json`, and the embedded input.

    Raises:
      UserError: the config is wrong, no volume can be used, or they show nothing to
        calibrate on.
    """
    settings.check_simulate(config)
    jobs = list_jobs(input_of(config, workdir), workdir / "low_dose")
    lows = _low_jobs(config, workdir)
    jobs = [job for job in jobs if lows is None or job.name in lows]
    if not jobs:
        raise UserError(
            f"config.data.low: no volume of {config.data.low} has the name of one of "
            f"{config.data.input}"
        )
    places = np.linspace(0, len(jobs) - 1, min(_VOLUMES, len(jobs))).round()
    jobs = [jobs[int(place)] for place in places]
    skipped: list[Skipped] = []
    parts: list[tuple[np.ndarray, ...]] = []
    spacing: list[float] = []
    with Progress("calibrate", len(jobs), "volumes") as progress:
        for job in jobs:
            try:
                low = None if lows is None else lows[job.name]
                images, mm = _slices(job, low, config, math.ceil(_SLICES / len(jobs)))
                if parts and images[0].shape[1:] != parts[0][0].shape[1:]:
                    raise UserError(
                        f"slices of {images[0].shape[1:]} pixels, others have "
                        f"{parts[0][0].shape[1:]}; calibrate them apart"
                    )
                parts.append(images)
                spacing.extend([mm] * len(images[0]))
            except UserError as error:
                skipped.append(Skipped(path=job.source, reason=str(error)))
            progress.update(note=job.name)
    if skipped:
        logging.warning(describe_skipped(skipped))
    if not parts:
        raise UserError("no volume to calibrate on; see the list above")
    stacks = tuple(np.concatenate(stack) for stack in zip(*parts, strict=True))
    scanner = calibrate(
        stacks if lows is not None else stacks[0],
        np.asarray(spacing, np.float32),
        dose=config.input_dose if lows is None else _doses(config),
        electronic_variance=config.noise.electronic_variance,
        views=config.noise.views or None,
    )
    print("\n".join([*scanner.describe(), "", "to use it:", *overrides(scanner)]))
    record = json.dumps(dataclasses.asdict(scanner), indent=2)
    write_atomically(workdir / "calibration.json", record + "\n")


def overrides(scanner: Calibration) -> list[str]:
    """The command-line arguments that make a recipe simulate this scanner."""
    values = {
        "photons": f"{scanner.photons:.6g}",
        "electronic_variance": f"{scanner.electronic_variance:.6g}",
        "filter_name": scanner.filter_name,
        "cutoff": f"{scanner.cutoff:.6g}",
        "window": "'(" + ", ".join(f"{w:.6g}" for w in scanner.window) + ")'",
    }
    if not scanner.window:
        del values["window"]
    return [f"  --config.noise.{key}={value}" for key, value in values.items()]


def _doses(config: ConfigDict) -> tuple[float, float]:
    if config.data.low_dose >= config.input_dose:
        raise UserError(
            f"config.data.low_dose: got {config.data.low_dose}, accepted: below "
            f"config.input_dose ({config.input_dose})"
        )
    return config.data.low_dose, config.input_dose


def _low_jobs(config: ConfigDict, workdir: Path) -> dict[str, Job] | None:
    if not config.data.low:
        return None
    jobs = list_jobs(Path(config.data.low), workdir / "low_dose")
    return {job.name: job for job in jobs}


def _slices(
    job: Job, low: Job | None, config: ConfigDict, count: int
) -> tuple[tuple[np.ndarray, ...], float]:
    """Evenly spaced slices of a volume, or of (low, normal) of a pair; pixel size."""
    normal = read_scan(job.source, config)
    volumes: Sequence[Volume] = (normal,)
    places = [(index,) for index in range(len(normal.hu))]
    if low is not None:
        low_volume = read_scan(low.source, config)
        volumes = (low_volume, normal)
        places, _ = match_slices(low_volume, normal)
    chosen = np.linspace(0, len(places) - 1, min(count, len(places))).round()
    index = np.asarray(places)[chosen.astype(int)]
    images = tuple(v.hu[index[:, side]] for side, v in enumerate(volumes))
    return images, normal.spacing_mm[2]
