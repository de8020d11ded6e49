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
- Clipped to the range that the input was stored in, see `stored_range`.

With `config.calibrate` every volume's noise model is calibrated on the volume itself.
"""

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Bool, Float32

from common.config import ConfigDict, flatten
from common.errors import UserError
from common.files import write_atomically
from common.progress import Progress
from ipv2 import settings
from ipv2.calibration import calibrate
from ipv2.ct_io import (
    PADDING_HU,
    Skipped,
    Volume,
    at_dose,
    describe_skipped,
    slice_number,
    with_hu,
    write_volume,
)
from ipv2.kernels import bit_mask
from ipv2.kernels.flood_fill import flood_fill
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.scans import Job, check_scan, input_of, list_jobs, read_scan

# Raised when the same seed gives other noise: results of two are not mixed.
MODEL = "ipv2 low-dose simulation 1"

# 12 bits from -1024 HU; else what int16 holds from there, above what marks padding.
_TWELVE_BITS = (PADDING_HU, 3071.0)
_SIXTEEN_BITS = (-1999.0, 32767.0 + PADDING_HU)


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
    waiting = jobs if config.overwrite else [j for j in jobs if not _done(j, config)]
    there = len(jobs) - len(waiting)
    if there:
        logging.info("%d of %d volumes are there already", there, len(jobs))

    skipped: list[Skipped] = []
    with Progress("simulate", sum(j.slices for j in waiting), "slices") as progress:
        for job in waiting:
            counted = 0

            def count(slices: int, job: Job = job) -> None:
                nonlocal counted
                counted += slices
                progress.update(slices, note=job.name)

            try:
                _simulate_one(job, config, count)
            except UserError as error:
                skipped.append(Skipped(path=job.source, reason=str(error)))
            progress.update(job.slices - counted)
    if skipped:
        logging.warning(describe_skipped(skipped))
    done = len(waiting) - len(skipped)
    print(
        f"{done} volumes simulated at dose {config.dose:g}, {there} there before, "
        f"{len(skipped)} skipped: {output}"
    )
    if not done and not there:
        raise UserError(f"{source}: no volume could be simulated; see the list above")


def _simulate_one(job: Job, config: ConfigDict, count: Callable[[int], None]) -> None:
    """Reads, simulates and writes a volume, then its record."""
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
        slice_tags=tuple(at_dose(tags, fraction) for tags in result.slice_tags),
    )
    write_volume(
        result,
        job.target,
        format=result.format,
        overwrite=config.overwrite,
        series_description=series_description(volume, scan),
        derivation_description=derivation_description(volume, scan, config.seed),
    )
    record = _asked(job, config) | {"scan": dataclasses.asdict(scan)}
    write_atomically(job.record, json.dumps(record, indent=2) + "\n")


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


@jax.jit
def padding(hu: Float32[Array, "b h w"]) -> Bool[Array, "b h w"]:
    """Pixels that were not measured: PADDING_HU, 4-connected to the border through it.

    Noise of air that a scanner clips at -1024 HU is left alone: it does not percolate
    along four neighbours before 59 % of the pixels are clipped.
    """
    height, width = hu.shape[-2:]
    empty = bit_mask.pack(hu == PADDING_HU)
    border = bit_mask.like(bit_mask.border(height, width), empty)
    return bit_mask.unpack(flood_fill(border, empty), height)


def stored_range(hu: np.ndarray) -> tuple[float, float]:
    """(lowest, highest) HU to store: where the scanner of the input clips, so it is.

    12 bits from -1024 HU, as most scanners store, wherever the input keeps to them: air
    that is as noisy as that clips. An input beyond either end has an own scale: then
    int16, above -2000, which readers take for padding.
    """
    ends = zip(_TWELVE_BITS, _SIXTEEN_BITS, strict=True)
    (low, lower), (high, higher) = ends
    return (
        low if hu.min() >= low else lower,
        high if hu.max() <= high else higher,
    )


def _done(job: Job, config: ConfigDict) -> bool:
    """Whether the result is there; raises UserError if it was made otherwise."""
    if not _is_there(job.target):
        return False
    advice = "Give another --config.output, or --config.overwrite=True."
    if not job.record.is_file():
        raise UserError(
            f"{job.target}: is there, without a {job.record.name} that says how it was "
            f"made. {advice}"
        )
    made = dict(flatten(json.loads(job.record.read_text(encoding="utf-8"))))
    differing = [
        f"  {key}: {made.get(key)!r} there, {value!r} asked for"
        for key, value in flatten(_asked(job, config))
        if made.get(key) != value
    ]
    if differing:
        raise UserError(
            "\n".join([f"{job.target}: was made otherwise:", *differing, advice])
        )
    return True


def _is_there(target: Path) -> bool:
    if target.is_dir():
        return any(path.is_file() for path in target.iterdir())
    return target.exists()


def _asked(job: Job, config: ConfigDict) -> dict[str, Any]:
    """What decides the result, as its record holds it."""
    asked = {
        "model": MODEL,
        "source": str(job.source),
        "name": job.name,
        "seed": config.seed,
        "dose": config.dose,
        "input_dose": config.input_dose,
        "calibrate": config.calibrate,
        "noise": config.noise.to_dict(),
    }
    return json.loads(json.dumps(asked))  # tuples are lists there


def series_description(volume: Volume, scan: DoseParams) -> str:
    """SeriesDescription: the input's, cut so that the dose always fits."""
    own = f" (simulated {100 * scan.dose:g} % dose)"
    before = volume.tags.get("0008|103e", "").strip(" \0") or volume.name
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
