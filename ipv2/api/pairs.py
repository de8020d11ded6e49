"""Makes an aligned pair of two scans or two arrays."""

import dataclasses
from typing import Any, NamedTuple, cast

import numpy as np
from absl import logging

from ipv2.api.arguments import (
    Image,
    SpacingMm,
    fields_of,
    named_as_arguments,
    require_spacing,
    require_whole,
    take_image,
)
from ipv2.ct_io import match_slices
from ipv2.kernels.photon_noise import DoseParams
from ipv2.purification.purify import PurifyParams
from ipv2.volumes.checks import check_square
from ipv2.volumes.order import with_volume
from ipv2.volumes.pairs import purified_pair
from ipv2.volumes.scan import Scan


class PurifiedPair(NamedTuple):
    """An aligned pair of scans or arrays, and the mask it was composed with.

    Attributes:
      lq_bar: training input, HU.
      gt_bar: test label, HU.
      lung_mask: where each takes the other image: bool, or a scan of 0 and 1.
    """

    lq_bar: Any
    gt_bar: Any
    lung_mask: Any


def purify(
    low: Image,
    normal: Image,
    *,
    version: str = "v2",
    seed: int = 0,
    spacing_mm: SpacingMm = None,
    name: str | None = None,
    match: str = "position",
    volume: bool | None = None,
    batch_size: int = 4,
    **options: Any,
) -> PurifiedPair:
    """Returns an aligned pair, made of images of two breaths, which do not line up.

    The steps are in `ipv2.purification.purify`. The result is that of `--task purify`,
    before a file rounds to whole HU.

    Args:
      low: low-dose image: a scan, or an array of HU.
      normal: normal-dose image of another breath, of the same type.
      version: 'v1' or 'v2'.
      seed: seed of the noise that v2 adds.
      spacing_mm: size of the square pixels of arrays, mm; v2's noise needs it.
      name: a name for the noise, which follows from seed, name and slice number alone.
        The default is the name of `low`, or 'array' for arrays.
      match: whether slices of scans belong together by 'position' or by 'index'. Slices
        without a partner are left out, and a line in the log names them.
      volume: whether the masks use the order of the slices, which keeps airways and
        bowel gas out of the lungs; for arrays (slices, rows, columns) too. None: for
        scans whose slices have positions.
      batch_size: slices at once; changes memory, and last bits.
      **options: other fields of `PurifyParams`: variant, window, t, remove_background,
        align_contour, add_noise, remove_noise, ...; and `dose`, the dose of the noise
        that v2 adds: a fraction of normal dose, or `DoseParams`.

    Raises:
      ValueError: a value is not accepted, the images do not fit together, or do not
        hold HU.
      TypeError: the images are no scans or arrays, or not of one type; or an option is
        unknown.
    """
    if isinstance(low, Scan) != isinstance(normal, Scan):
        raise TypeError(
            f"low and normal: got {type(low).__name__} and {type(normal).__name__}, "
            "accepted: two scans, or two arrays"
        )
    lq, back = take_image(low, spacing_mm=spacing_mm, what="low")
    gt, _ = take_image(normal, spacing_mm=spacing_mm, what="normal")
    if not isinstance(low, Scan) and np.shape(low) != np.shape(normal):
        raise ValueError(
            f"low and normal must have one shape, got {np.shape(low)} and "
            f"{np.shape(normal)}"
        )
    if match != "position" and match != "index":
        raise ValueError(f"match: got {match!r}, accepted: 'position' or 'index'")
    if isinstance(options.get("dose"), int | float):
        options["dose"] = DoseParams(dose=options["dose"])
    params = fields_of(PurifyParams, "purify", options, version=version)
    volume = True if volume is None and params.anatomy.volume else volume
    if volume and params.variant == "reference":
        raise ValueError(
            "volume: got True, accepted: False with variant='reference', which follows "
            "the published steps"
        )
    require_whole("seed", seed, 0)
    require_whole("batch_size", batch_size, 1)
    if params.version == "v2" and params.add_noise == "physical":
        require_spacing(lq)
        check_square(lq)
    with named_as_arguments():
        matches, left_out = match_slices(lq, gt, by=match)
        lq = _plain(lq).take([i for i, _ in matches])
        gt = _plain(gt).take([j for _, j in matches])
        if volume and not isinstance(low, Scan):
            # The first axis of an array is the order of its slices.
            lq, gt = (dataclasses.replace(s, positions_known=True) for s in (lq, gt))
        params, _ = with_volume(params, lq, gt, volume)
    if left_out:
        logging.warning("%s: %s", lq.name, left_out)
    pair = purified_pair(
        lq,
        gt,
        params,
        name=lq.name if name is None else name,
        seed=seed,
        numbers=[i for i, _ in matches],
        batch_size=batch_size,
    )
    return PurifiedPair(*(back(cast(Scan, volume)) for volume in pair))


def _plain(scan: Scan) -> Scan:
    """The scan without marks of padding, which a composed image does not have."""
    return dataclasses.replace(scan, padding_hu=None)
