"""Task purify: a folder of pairs in, a folder of purified pairs out.

Reads `root/lq` and `root/gt`; writes `output/lq_bar`, `output/gt_bar` and
`output/lung_mask` under the input's names and in its format. A pair whose three files
are there is not done again, so an interrupted command goes on.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from common.config import ConfigDict, hold_config
from common.errors import UserError
from common.progress import Progress
from ipv2 import settings
from ipv2.ct_io import (
    PairItem,
    Skipped,
    Volume,
    describe_skipped,
    match_slices,
    paired_paths,
    read_pairs,
    with_hu,
    write_volume,
)
from ipv2.purification import PurifyParams, purify
from ipv2.train_step import example_rngs

_SIDES = ("lq_bar", "gt_bar", "lung_mask")


def purify_folder(config: ConfigDict, workdir: Path) -> None:
    """Purifies every pair of `config.data.root` into `config.purify.output`.

    Args:
      config: of a recipe; checked here.
      workdir: not written to: the output folder holds all there is.

    Raises:
      UserError: the config is wrong, there is no pair, or none could be purified.
    """
    del workdir
    settings.check(config)
    root, output = _folders(config)
    # Which options made what lies there; other ones must not be mixed in.
    kept = ConfigDict({key: config[key] for key in ("seed", "purify", "noise")})
    hold_config(kept, output, free=("purify.output", "purify.overwrite"))

    found = paired_paths(root)
    skipped = list(found.skipped)
    waiting = [
        pair
        for pair in found.pairs
        if config.purify.overwrite
        or not all(path.exists() for path in _paths(output, pair).values())
    ]
    there = len(found.pairs) - len(waiting)
    if there:
        logging.info("%d of %d pairs are there already", there, len(found.pairs))

    params = settings.purify_params(config)
    done = 0
    with Progress("purify", len(waiting), "pairs") as progress:
        for pair, lq, gt in _each(waiting, skipped, progress, config):
            try:
                volumes = purify_pair(lq, gt, params, config, name=pair.name)
                for side, path in _paths(output, pair).items():
                    write_volume(
                        volumes[side],
                        path,
                        format=volumes[side].format,
                        overwrite=True,
                        series_description=f"IPv2 {side} {params.variant}",
                        derivation_description=f"image purification, {params.version}",
                    )
            except UserError as error:
                skipped.append(Skipped(path=pair.lq, reason=str(error)))
                continue
            done += 1
    if skipped:
        logging.warning(describe_skipped(skipped))
    print(f"{done} pairs purified, {there} there before, {len(skipped)} skipped")
    if not done and not there:
        raise UserError(f"{root}: no pair could be purified; see the list above")


def purify_pair(
    lq: Volume, gt: Volume, params: PurifyParams, config: ConfigDict, *, name: str
) -> dict[str, Volume]:
    """Returns `lq_bar`, `gt_bar` and `lung_mask` of two volumes, slice by slice.

    Args:
      lq: low-dose volume.
      gt: normal-dose volume.
      params: of the purification.
      config: a checked IPv2 config; `seed`, `data.match` and `evaluate.batch_size`.
      name: of the pair; the noise of a slice follows from seed, name and slice alone.

    Raises:
      UserError: the volumes do not fit, or are not what the variant works on.
    """
    matches, left_out = match_slices(lq, gt, by=config.data.match)
    if left_out:
        logging.warning("%s: %s", name, left_out)
    lq = _take(lq, [i for i, _ in matches])
    gt = _take(gt, [j for _, j in matches])
    params = _for_unit(params, lq)

    number = np.uint32(zlib.crc32(name.encode()))
    places = number + np.asarray([i for i, _ in matches], np.uint32)
    rngs = example_rngs(config.seed, jnp.asarray(places))
    batches = _batches(lq, gt, rngs, params, config.evaluate.batch_size)
    lq_bar, gt_bar, weight = (
        np.concatenate(parts) for parts in zip(*batches, strict=True)
    )
    return {
        "lq_bar": with_hu(lq, lq_bar),
        "gt_bar": with_hu(gt, gt_bar),
        "lung_mask": dataclasses.replace(with_hu(lq, weight > 0.5), unit="mask"),
    }


def _batches(
    lq: Volume, gt: Volume, rngs: jax.Array, params: PurifyParams, size: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Purified batches of one size, so that it compiles once; filling is cut off."""
    count = len(lq.hu)
    spacing_mm = jnp.asarray(lq.spacing_mm[1:], jnp.float32)
    for start in range(0, count, size):
        real = min(size, count - start)
        places = np.minimum(np.arange(start, start + size), count - 1)
        low, normal = (jnp.asarray(volume.hu[places]) for volume in (lq, gt))
        pair = purify(rngs[places], low, normal, spacing_mm, params)
        yield tuple(np.asarray(array)[:real] for array in pair)


def _for_unit(params: PurifyParams, volume: Volume) -> PurifyParams:
    if volume.unit == "HU":
        return params
    if params.variant == "robust" or params.add_noise == "physical":
        raise UserError(
            f"{volume.name}: grey levels, not HU: the robust masks and the physical "
            "noise need HU. Give the window the images were made with, "
            "--config.data.window='(-600.0, 1500.0)' for instance, or use the "
            "published 8-bit steps: --config.purify.variant=reference "
            "--config.purify.add_noise=reference"
        )
    if volume.bits != 8:
        raise UserError(
            f"{volume.name}: {volume.bits}-bit grey levels; the published steps work "
            "on 8 bits. Give --config.data.window, or save the images with 8 bits."
        )
    return dataclasses.replace(params, units="grey")


def _take(volume: Volume, indices: list[int]) -> Volume:
    """The volume's slices `indices`, which ascend without a gap, on their own grid."""
    if indices == list(range(len(volume.hu))):
        return volume
    first, last = indices[0], indices[-1]
    if indices != list(range(first, last + 1)):
        raise UserError(
            f"{volume.name}: the slices that have a partner ({indices[0]} to "
            f"{indices[-1]}) are not one piece, so they are no volume. Pair by index "
            "(--config.data.match=index), or resample one of the two."
        )
    part = slice(first, last + 1)
    x, y, z = (float(v) for v in volume.position_mm(first))
    return dataclasses.replace(
        volume,
        hu=volume.hu[part],
        origin_mm=(x, y, z),
        paths=volume.paths[part] if len(volume.paths) > 1 else volume.paths,
        slice_tags=volume.slice_tags[part],
    )


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
    if Path(output).resolve() == Path(root).resolve():
        raise UserError(
            "config.purify.output: is config.data.root; give another folder"
        )
    return Path(root), Path(output)


def _paths(output: Path, pair: PairItem) -> dict[str, Path]:
    """Where the results of a pair go: under the input's names, the mask under lq's."""
    folder = Path(pair.name).parent
    names = (pair.lq.name, pair.gt.name, pair.lq.name)
    # A series that lies in lq/ itself has no name: its results lie in lq_bar/ itself.
    return {
        side: output / side / folder / name if pair.name else output / side
        for side, name in zip(_SIDES, names, strict=True)
    }


def _each(
    pairs: list[PairItem],
    skipped: list[Skipped],
    progress: Progress,
    config: ConfigDict,
) -> Iterator[tuple[PairItem, Volume, Volume]]:
    """Reads one pair after the other and counts them, unreadable ones too."""
    for pair in pairs:
        yield from read_pairs([pair], skipped, settings.read_options(config))
        progress.update(note=pair.name)
