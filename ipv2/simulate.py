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
"""

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
from ipv2.ct_io import (
    PADDING_HU,
    Item,
    Skipped,
    Volume,
    at_dose,
    count_slices,
    describe_skipped,
    list_volumes,
    read_volume,
    slice_number,
    stem_of,
    with_hu,
    write_volume,
)
from ipv2.embedded_scans import write_embedded
from ipv2.kernels import bit_mask
from ipv2.kernels.flood_fill import flood_fill
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose

# Raised when the same seed gives other noise: results of two are not mixed.
MODEL = "ipv2 low-dose simulation 1"

# 12 bits from -1024 HU; else what int16 holds from there, above what marks padding.
_TWELVE_BITS = (PADDING_HU, 3071.0)
_SIXTEEN_BITS = (-1999.0, 32767.0 + PADDING_HU)


class Job(NamedTuple):
    """A volume to simulate.

    Attributes:
      name: what its noise follows from, beside seed and slice.
      source: its file or folder.
      target: where the result goes.
      slices: about how many it has.
    """

    name: str
    source: Path
    target: Path
    slices: int

    @property
    def record(self) -> Path:
        """Where is said how the result was made; written last."""
        return self.target.with_name(f"{self.target.name}.json")


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
    scan = settings.simulated_dose_params(config)
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
        noisy = simulate_low_dose(rngs[places], hu, volume.spacing_mm[2], scan)
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


def check_scan(volume: Volume) -> None:
    """Raises UserError unless slices are axial HU on square pixels of known size."""
    volume.require_hu()
    normal = np.asarray(volume.direction).reshape(3, 3)[:, 2]
    # 0.9: gantries and necks tilt by up to 25 degrees.
    if abs(normal[2]) < 0.9:
        raise UserError(
            f"{volume.name}: not axial slices (their normal is "
            f"{np.round(normal, 2).tolist()}). Rays are traced within axial slices, as "
            "scanners do; reorient the volume."
        )
    if not volume.spacing_known:
        raise UserError(
            f"{volume.name}: no pixel size, which says how much rays are attenuated. "
            "Give --config.data.pixel_mm=0.8, say, or NIfTI, MHA, NRRD or DICOM."
        )
    _, row, column = volume.spacing_mm
    # 1e-3: headers round; a tenth of a percent moves no HU.
    if abs(row / column - 1) > 1e-3:
        raise UserError(
            f"{volume.name}: pixels of {row:g} x {column:g} mm. Rays are traced "
            "through square pixels; resample the volume to square ones."
        )
    low, high = volume.hu.min(), volume.hu.max()
    if low >= 0 and high <= 255:
        raise UserError(
            f"{volume.name}: values from {low:g} to {high:g} are grey levels, not HU "
            "(air is -1000, water 0)."
        )
    if min(volume.hu.shape[1:]) < 16:
        raise UserError(
            f"{volume.name}: slices of {volume.hu.shape[1]} x {volume.hu.shape[2]} "
            "pixels; at least 16 x 16 are needed."
        )


def read_scan(path: Path, config: ConfigDict) -> Volume:
    """The volume of a file or series, read as `config.data` says, known to be usable.

    Raises:
      UserError: it cannot be read, or not be simulated from.
    """
    data = config.data
    volume = read_volume(
        path,
        series=data.series or None,
        window=tuple(data.window) if data.window[1] else None,
    )
    if volume.unit == "grey":
        raise UserError(
            f"{path}: a PNG has no HU. State the window it was made with, "
            "--config.data.window='(-600.0, 1500.0)' for instance, and its pixel size, "
            "--config.data.pixel_mm=0.8"
        )
    if not volume.spacing_known and data.pixel_mm:
        volume = dataclasses.replace(
            volume,
            spacing_mm=(1.0, data.pixel_mm, data.pixel_mm),
            spacing_known=True,
        )
    check_scan(volume)
    return volume


def input_of(config: ConfigDict, workdir: Path) -> Path:
    """The file or folder to read; the embedded scans are written to the workdir first.

    Raises:
      UserError: none is given, or two are.
    """
    data = config.data
    if bool(data.input) == bool(data.embedded):
        raise UserError(
            "give one input: --config.data.input=DIR (a CT file, a DICOM series, or a "
            "folder of many), or the variant :sample_ct or :smoke of the recipe"
        )
    return Path(data.input) if data.input else write_embedded(config, workdir / "input")


def list_jobs(source: Path, output: Path) -> list[Job]:
    """The volumes below a file or folder, and where their results go.

    Raises:
      UserError: there is none, or a result would lie upon or within the input.
    """
    source = source.resolve()
    output = output.resolve()
    if source.is_dir() and (output == source or source in output.parents):
        raise UserError(
            f"config.output: {output} is the input folder or lies in it; give another "
            "folder"
        )
    if source.is_dir():
        items = list_volumes(source)
    else:
        items = [Item(name=stem_of(source), path=source)]
    if not items:
        raise UserError(
            f"{source}: no CT volume found. Give a DICOM series, NIfTI, MHA, MHD, NRRD "
            "or PNG file, or a folder of them."
        )
    jobs = [
        Job(
            name=item.name or source.name,
            source=item.path,
            # A series in the input folder itself goes under that folder's name.
            target=output
            / (item.path.relative_to(source) if item.path != source else source.name),
            slices=count_slices(item),
        )
        for item in items
    ]
    for job in jobs:
        if job.target == job.source:
            raise UserError(
                f"config.output: {job.source} would be written upon itself; give "
                "another folder"
            )
    targets = [job.target for job in jobs]
    if twice := sorted({str(t) for t in targets if targets.count(t) > 1}):
        raise UserError(
            f"{source}: two volumes would both be written to {twice[0]}; move one."
        )
    return jobs


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
    """What decides the result, for its record."""
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
    before = volume.tags.get("0008|103e", "").strip(" \0") or volume.name
    return before[: 64 - len(own)] + own


def derivation_description(volume: Volume, scan: DoseParams, seed: int) -> str:
    """DerivationDescription: the model and all of its parameters."""
    fraction = scan.dose / scan.input_dose
    return (
        f"{MODEL}: photon and electronic noise added to the source image. Dose "
        f"{scan.dose:g} of normal, source {scan.input_dose:g}; {scan.photons:g} "
        f"photons a ray at normal dose; electronic variance "
        f"{scan.electronic_variance:g}; water {scan.mu_water_per_mm:g} /mm; "
        f"{scan.views or max(volume.hu.shape[1:])} views; filter {scan.filter_name}, "
        f"cutoff {scan.cutoff:g}; seed {seed}. Tube current, exposure and CTDIvol are "
        f"the source's times {fraction:g}."
    )
