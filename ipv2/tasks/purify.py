"""Task purify: makes a folder of purified pairs from a folder of pairs.

Reads `root/lq` and `root/gt`; writes `output/lq_bar`, `output/gt_bar` and
`output/lung_mask` with the input's names and format. Writes a record of each pair to
`output/records`, which says how the three were made. A pair that was already made with
the same settings is not made again, so an interrupted command goes on. `jobs` says what
happens with other files there.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.config import ConfigDict
from common.errors import UserError
from common.version import STATED
from ipv2.ct_io import (
    Item,
    PairItem,
    Skipped,
    Volume,
    count_slices,
    match_slices,
    paired_paths,
    read_volume,
    write_volume,
)
from ipv2.jobs.job import Job, Target, fitting_name
from ipv2.jobs.records import Terms
from ipv2.jobs.run import Destination, Work, conclude, run_jobs
from ipv2.purification.purify import PurifyParams
from ipv2.tasks.check import check_config
from ipv2.tasks.job_settings import PurifySettings, purify_settings
from ipv2.tasks.scans import require_apart, require_jobs_apart, require_spacing
from ipv2.tasks.terms import job_terms
from ipv2.volumes.order import with_volume
from ipv2.volumes.pairs import purified_pair

# To be raised when the same pair gives other results, so that the two are not mixed.
MODEL = "ipv2 purification 2"

_SIDES = ("lq_bar", "gt_bar", "lung_mask")
_KEY = "config.purify.output"


def purify_folder(config: ConfigDict, workdir: Path) -> None:
    """Purifies every pair of `config.data.root` into `config.purify.output`.

    Args:
      config: the config of a recipe; checked here.
      workdir: not used: everything is written to the output folder.

    Raises:
      UserError: the config is wrong, there is no pair, a file in the output was made in
        another way, or no pair could be purified.
      Incomplete: `config.strict`, and a pair or a volume without partner was skipped.
    """
    del workdir
    check_config(config, takes_volumes=True)
    root, output = _folders(config)
    require_apart(output, [root, root / "lq", root / "gt"], key=_KEY)
    output = output.resolve()
    found = paired_paths(root, name_pattern=config.data.name_pattern)
    jobs = [_job(root, output, pair) for pair in found.pairs]
    require_jobs_apart(jobs, key=_KEY)
    settings, batch_size = purify_settings(config), config.evaluate.batch_size
    tally = run_jobs(
        "purify",
        jobs,
        lambda job, work: _purify_one(job, work, settings, batch_size),
        lambda job: _terms(job, settings),
        Destination(
            folder=output, section="config.purify", overwrite=config.purify.overwrite
        ),
        skipped=found.skipped,
        unused=found.unused,
        items="pairs",
    )
    print(
        f"{tally.done} pairs purified, {tally.there} there before, {tally.skipped} "
        "skipped"
    )
    conclude(tally, f"{root}: no pair could be purified", strict=config.strict)


def _terms(job: Job, settings: PurifySettings) -> Terms:
    return job_terms(
        MODEL,
        job,
        settings.by_key(),
        settings.files,
        sources=("lq", "gt"),
        needs_spacing=settings.purify.needs_spacing,
    )


def _purify_one(
    job: Job, work: Work, settings: PurifySettings, batch_size: int
) -> dict[str, Any]:
    """Reads, purifies and writes a pair; returns its sources."""
    files, params = settings.files, settings.purify
    lq, gt = (read_volume(source, files.reading) for source in job.sources)
    for volume in (lq, gt):
        work.leave_out(volume.left_out)
    results, left_out, masks = _purify_pair(
        lq, gt, settings, name=job.name, batch_size=batch_size, on_slices=work.count
    )
    if left_out:
        work.leave_out([Skipped(path=job.sources[0], reason=left_out)])
    for side, place in zip(_SIDES, work.places, strict=True):
        write_volume(
            results[side],
            place,
            format=results[side].format,
            multi_frame=files.multi_frame,
            series_description=f"IPv2 {side} {params.variant}",
            derivation_description=(
                f"image purification, {params.version}, {params.variant}, software "
                f"version {STATED}"
            ),
        )
    return {"sources": [str(source) for source in job.sources], "masks": masks}


def _purify_pair(
    lq: Volume,
    gt: Volume,
    settings: PurifySettings,
    *,
    name: str,
    batch_size: int,
    on_slices: Callable[[int], None],
) -> tuple[dict[str, Volume], str, str]:
    """Returns `lq_bar`, `gt_bar` and `lung_mask` of two volumes, by name.

    Also returns a text with the number of slices that have no partner, '' if none; and
    how the masks were made.

    Args:
      lq: low-dose volume.
      gt: normal-dose volume.
      settings: the task's settings.
      name: the pair's name; the noise of a slice follows from seed, name and slice
        number alone.
      batch_size: slices at once.
      on_slices: called with the number of slices that were just finished.

    Raises:
      UserError: the volumes do not fit together, or do not fit the variant.
    """
    matches, left_out = match_slices(lq, gt, by=settings.match)
    lq = lq.take([i for i, _ in matches])
    gt = gt.take([j for _, j in matches])
    params = _for_unit(settings.purify, lq, gt)
    params, masks = with_volume(params, lq, gt, settings.volume)
    if params.needs_spacing:
        require_spacing(lq)
    pair = purified_pair(
        lq,
        gt,
        params,
        name=name,
        seed=settings.seed,
        numbers=[i for i, _ in matches],
        batch_size=batch_size,
        on_slices=on_slices,
    )
    return pair._asdict(), left_out, masks


def _for_unit(params: PurifyParams, lq: Volume, gt: Volume) -> PurifyParams:
    """The purification in the unit of the volumes: HU or grey levels."""
    if lq.unit == "HU":
        return params
    if params.variant == "robust" or params.needs_spacing:
        raise UserError(
            f"{lq.name}: grey levels, not HU: the robust masks and the physical "
            "noise need HU. Give the window the images were made with, "
            "--config.data.window='(-600.0, 1500.0)' for instance, or use the "
            "published 8-bit steps: --config.purify.variant=reference "
            "--config.purify.add_noise=reference"
        )
    if gt.bits != lq.bits:
        raise UserError(
            f"{lq.name}: {lq.bits}-bit grey levels in lq, {gt.bits}-bit ones in gt. "
            "Give --config.data.window, or save both with 8 bits."
        )
    if lq.bits != 8:
        raise UserError(
            f"{lq.name}: {lq.bits}-bit grey levels; the published steps work "
            "on 8 bits. Give --config.data.window, or save the images with 8 bits."
        )
    return dataclasses.replace(params, units="grey")


def _folders(config: ConfigDict) -> tuple[Path, Path]:
    root, output = config.data.root, config.purify.output
    missing = [
        f"--config.{key}=DIR"
        for key, value in (("data.root", root), ("purify.output", output))
        if not value
    ]
    if missing:
        raise UserError(f"task purify needs {' and '.join(missing)}")
    if config.purify.version == "none":
        raise UserError("config.purify.version: got 'none', accepted: 'v1' or 'v2'")
    return Path(root), Path(output)


def _job(root: Path, output: Path, pair: PairItem) -> Job:
    """The job of a pair. Results have the names of the input, the mask that of lq."""
    sources = {"lq_bar": pair.lq, "gt_bar": pair.gt, "lung_mask": pair.lq}
    targets = tuple(
        # The results of a series that lies in lq/ itself lie in lq_bar/ itself.
        Target(
            path=output / side / source.relative_to(root / source_side),
            series=source.is_dir(),
        )
        for (side, source), source_side in zip(
            sources.items(), ("lq", "gt", "lq"), strict=True
        )
    )
    record = output / "records" / pair.name
    return Job(
        name=pair.name,
        sources=(pair.lq, pair.gt),
        targets=targets,
        record=record.with_name(fitting_name(record.name, ".json")),
        slices=count_slices(Item(name=pair.name, path=pair.lq)),
    )
