"""Task denoise: CT in, the same CT with less noise out.

Reads `config.denoise.input`: a file, the folder of a DICOM series, or a folder of many
volumes. Writes each under its own name and in its own format below
`config.denoise.output`, and beside it NAME.json, which says how it was made. A volume
whose NAME.json is there is not made again, so an interrupted command goes on.

The network is the one exported in `workdir/export`. What a slice becomes:
- The network's result in HU, rounded to 1 HU where the input holds integers.
- Padding stays padding, see `restored`; the network sees it at -1024 HU, as air.
- Clipped to the range that the input's slice is stored in, see `stored_hu`.

Slices are read, denoised and written one after the other, so memory does not grow with
the series; see `ct_io.reading` for the rare formats where it does. The same command
gives the same bits on a CPU or TPU; on GPUs XLA may sum in another order from run to
run, unless XLA_FLAGS holds --xla_gpu_deterministic_ops=true. So may another batch size
or number of devices: differences in the last bits of float32, which rounding to HU
hides but for values that lie halfway. (CNN-10 on two cores: batches of 1, 3 and 4,
tiles, and 2 devices gave equal bits.)
"""

import collections
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from common.config import ConfigDict
from common.devices import is_single_process
from common.errors import UserError
from common.version import VERSION
from ipv2 import settings
from ipv2.apply import Applier
from ipv2.ct_io import (
    PADDING_HU,
    Grid,
    Slice,
    SliceSource,
    open_volume,
    slice_writer,
    suffix_of,
)
from ipv2.denoiser import channels_of, make_denoise
from ipv2.jobs import Count, run_jobs
from ipv2.scans import Job, check_slices, list_jobs, refuse_grey_levels
from ipv2.stored_hu import padding, stored_range
from ipv2.tiling import Tiling, create_tiling
from ipv2.trained import Trained, load_trained

# Raised when the same network gives other results: those of two are not mixed.
MODEL = "ipv2 denoising 1"

# What readers take for padding wherever it stands, see `ct_io`.
_ALWAYS_PADDING = -2000.0


def denoise(config: ConfigDict, workdir: Path) -> None:
    """Denoises every volume of `config.denoise.input` into `config.denoise.output`.

    Args:
      config: of a recipe; checked here. The network is the exported one's.
      workdir: of a finished training run; takes the result if no output is given.

    Raises:
      UserError: the config is wrong, the workdir holds no network, there is no volume,
        what lies in the output was made otherwise, or no volume could be denoised.
    """
    settings.check(config)
    section = config.denoise
    if not section.input:
        raise UserError(
            "task denoise needs --config.denoise.input=DIR: a CT file, a DICOM series, "
            "or a folder of many"
        )
    if not is_single_process():
        raise UserError(
            "task denoise runs in one process, on all devices of one machine; start it "
            "on every machine with its own --config.denoise.input"
        )
    source = Path(section.input)
    output = Path(section.output) if section.output else workdir / "denoised"
    jobs = list_jobs(source, output, key="config.denoise.output")
    trained = load_trained(config, workdir / "export")
    tiling = create_tiling(
        tile=section.tile,
        overlap=section.overlap,
        radius=trained.radius,
        stride=trained.denoiser.model.stride,
    )
    logging.info("%s", trained.describe())
    applier = Applier(
        make_denoise(trained.denoiser),
        trained.variables,
        channels=channels_of(trained.denoiser.model),
        batch_size=section.batch_size,
        tiling=tiling,
    )
    asked = {
        "task": MODEL,
        "network": trained.identity,
        "tiling": tiling._asdict(),
        "series": config.data.series,
    }
    done, there, skipped = run_jobs(
        "denoise",
        jobs,
        lambda job, replace, count: _denoise_one(
            job, config, trained, applier, replace, count
        ),
        lambda job: asked | _asked_of(job, config),
        section="config.denoise",
        overwrite=section.overwrite,
    )
    print(
        f"{done} volumes denoised with {trained.name} {trained.sha256[:8]}, {there} "
        f"there before, {skipped} skipped: {output}"
    )
    if not done and not there:
        raise UserError(f"{source}: no volume could be denoised; see the list above")


def _asked_of(job: Job, config: ConfigDict) -> dict[str, Any]:
    """What decides the result of one volume beside the network."""
    of_job = {"source": str(job.source), "name": job.name}
    if suffix_of(job.source) == ".png":
        return of_job | {"window": config.data.window}
    return of_job


def _denoise_one(
    job: Job,
    config: ConfigDict,
    trained: Trained,
    applier: Applier,
    replace: bool,
    count: Count,
) -> dict[str, Any]:
    """Reads, denoises and writes a volume; returns by what."""
    with open_volume(job.source, settings.read_options(config)) as volume:
        if volume.unit == "grey":
            raise UserError(
                f"{job.source}: a PNG has no HU. State the window it was made with, "
                "--config.data.window='(-600.0, 1500.0)' for instance."
            )
        check_slices(volume, volume.shape)
        with slice_writer(
            volume,
            volume.shape,
            job.target,
            format=volume.format,
            overwrite=replace,
            series_description=series_description(volume, trained),
            derivation_description=derivation_description(trained, applier.tiling),
        ) as write:
            for original, hu in denoised_slices(volume, applier):
                write(hu, original.header)
                count(1)
    return {"software_version": VERSION, "manifest": _short(trained.manifest)}


def denoised_slices(
    volume: SliceSource, applier: Applier
) -> Iterator[tuple[Slice, np.ndarray]]:
    """Every slice of a volume and what it becomes, HU (rows, columns).

    Raises:
      UserError: a slice is damaged, the volume holds no HU, or a result is not finite.
    """
    waiting: collections.deque[Slice] = collections.deque()
    low, high = math.inf, -math.inf

    def read() -> Iterator[np.ndarray]:
        nonlocal low, high
        for index in range(volume.shape[0]):
            waiting.append(volume.read(index))
            hu = waiting[-1].hu
            low, high = min(low, float(hu.min())), max(high, float(hu.max()))
            yield hu

    for index, result in enumerate(applier(read(), volume.shape)):
        if not np.isfinite(result).all():
            raise UserError(
                f"{volume.name}: the network's result is not finite (slice {index}). "
                "Look for values in the input that are no HU, or train anew."
            )
        original = waiting.popleft()
        yield original, restored(original, result)
    refuse_grey_levels(volume, low, high)


def restored(original: Slice, hu: np.ndarray) -> np.ndarray:
    """A result as the input's file would hold it.

    Clipped to the range of `stored_hu`. What was not measured is what it was. Where the
    file marks padding, that alone is meant: it gets its own value back where every
    reader knows it again, -2000 HU and less; values that only PixelPaddingValue marked
    become -1024 HU, since that attribute, which is in stored values, goes with the
    input's. Where the file marks none, it is the pixels of -1024 HU that
    `stored_hu.padding` finds.

    Args:
      original: the slice that was read.
      hu: float32 (rows, columns), what the network made of it.
    """
    hu = np.clip(hu, *stored_range(original.hu))
    outside = original.stored != original.hu
    if not outside.any() and (original.hu == PADDING_HU).any():
        outside = np.asarray(padding(jnp.asarray(original.hu[None])))[0]
    kept = np.where(original.stored <= _ALWAYS_PADDING, original.stored, PADDING_HU)
    return np.where(outside, kept, hu).astype(np.float32)


def series_description(grid: Grid, trained: Trained) -> str:
    """SeriesDescription: the input's, cut so that network, hash and version fit."""
    own = f" (denoised: {trained.name} {trained.sha256[:8]}, ipv2 {VERSION})"
    before = grid.description or grid.name
    return before[: 64 - len(own)] + own


def derivation_description(trained: Trained, tiling: Tiling) -> str:
    """DerivationDescription: the network and how it was applied."""
    tiles = (
        f"tiles of {tiling.tile} pixels, overlap {tiling.overlap}"
        if tiling.tile
        else "whole slices"
    )
    return (
        f"{MODEL}, software version {VERSION}: {trained.describe()}; applied to {tiles}"
    )


def _short(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without the list of files."""
    return {key: value for key, value in manifest.items() if key != "files"}
