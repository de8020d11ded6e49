"""What the images of each data set are measured against, as `config.evaluate.label`.

| name    | reference                                              | aligned with lq  |
|---------|--------------------------------------------------------|------------------|
| `truth` | the image without the low dose's noise, if it is known | yes              |
| `gt`    | the normal-dose image of the pair                      | if breaths agree |
| `v1`    | IPv1's test label                                      | no               |
| `v2`    | IPv2's test label                                      | no               |
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging

from common.config import ConfigDict
from common.errors import UserError
from ipv2.measures.alignment import Alignment, alignment_of
from ipv2.measures.noise_analysis import MAP_MIN_PX
from ipv2.purification.purify import PurifyParams, purify, regions
from ipv2.report.numbers import ALIGNED
from ipv2.tasks import settings
from ipv2.tasks.sources import Joined, Sources
from ipv2.training.train_step import example_rngs

# What a prepared slice is made of; `output` is that of other software.
KEYS = ("lq", "gt", "truth", "spacing_mm", "slice", "output")
_SLICES_LOOKED_AT = 8


class Reference(NamedTuple):
    """What a data set is measured against.

    Attributes:
      label: of `rules.LABELS`.
      alignment: of lq and gt, where it decided the label or the label is gt; else
        None.
    """

    label: str
    alignment: Alignment | None = None

    @property
    def aligned(self) -> bool:
        """Whether the reference shows the anatomy where the input has it."""
        return self.label in ALIGNED

    def described(self) -> dict[str, Any]:
        """Returns the keys of a block of results."""
        if self.alignment is None:
            return {"label": self.label}
        alignment = self.alignment._asdict() | {"aligned": self.alignment.aligned}
        return {"label": self.label, "alignment": alignment}


def references_of(sources: Sources, config: ConfigDict) -> dict[str, Reference]:
    """Returns the reference of every data set that has slices to measure.

    Args:
      sources: the data of the run.
      config: a checked IPv2 config, of which `evaluate.label` counts.

    Raises:
      UserError: the label is 'truth', and a data set has none; or its slices are too
        small for the filters.
    """
    found: dict[str, Reference] = {}
    for split in (sources.test, sources.val):
        for name, places in split.places_by_dataset().items():
            if name not in found:
                _check_size(name, split[places[0]], config)
                found[name] = _reference(name, split, places, config.evaluate.label)
    return found


def _check_size(name: str, record: Mapping[str, Any], config: ConfigDict) -> None:
    """Raises UserError if the noise that filters need cannot be measured."""
    rows, columns = record["lq"].shape
    if config.evaluate.filters and min(rows, columns) < MAP_MIN_PX:
        raise UserError(
            f"config.evaluate.filters: {name} has slices of {rows} x {columns} pixels, "
            f"accepted: at least {MAP_MIN_PX} along each axis, or filters=()"
        )


def _reference(
    name: str, source: Joined, places: Sequence[int], label: str
) -> Reference:
    has_truth = "truth" in source[places[0]]
    if label == "truth" and not has_truth:
        raise UserError(
            f"config.evaluate.label: got 'truth', but {name} has no known truth; "
            "accepted: '' (chosen for you), 'gt', 'v1', 'v2'"
        )
    if not label and has_truth:
        return Reference("truth")
    if label not in ("", "gt"):
        return Reference(label)
    chosen = evenly(places, _SLICES_LOOKED_AT)
    alignment = alignment_of(_pairs(source[place] for place in chosen))
    reference = Reference(label or ("gt" if alignment.aligned else "v2"), alignment)
    doubtful = label == "gt" and not alignment.aligned
    log = logging.warning if doubtful else logging.info
    log("%s: %s", name, described_alignment(reference.described()))
    return reference


def _pairs(
    records: Iterator[Mapping[str, Any]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for record in records:
        yield record["lq"].astype(np.float32), record["gt"].astype(np.float32)


def described_alignment(block: Mapping[str, Any]) -> str:
    """Returns in words whether lq and gt are aligned; '' if nobody looked.

    Args:
      block: `label` and `alignment` of a block of results.
    """
    if "alignment" not in block:
        return ""
    found, label = block["alignment"], block["label"]
    if found["share"] is None:
        return (
            "It is not known whether lq and gt are aligned: slices have fewer than 128 "
            f"pixels or too little structure. The reference is {label} "
            "(config.evaluate.label)."
        )
    return (
        f"lq and gt are {'' if found['aligned'] else 'not '}aligned: by correlation "
        f"{found['share']:.0%} of {found['n_tiles']} tiles of {found['n_slices']} "
        f"slices are in place, and 90 % are needed. The reference is {label} "
        "(config.evaluate.label)."
    )


def evenly(places: Sequence[int], count: int) -> list[int]:
    """Returns `count` of the places, evenly spread; all if `count` is 0."""
    wanted = min(count or len(places), len(places))
    return [places[round(i * len(places) / wanted)] for i in range(wanted)]


def preparation(label: str, config: ConfigDict) -> Callable[[Any], dict[str, Any]]:
    """Returns a function from stacked records to what `evaluate_slices` measures.

    Args:
      label: of `rules.LABELS`.
      config: a checked IPv2 config, of which `purify` counts.

    Returns:
      The same function for the same settings, so that jit compiles it once. Beside a
      truth it makes IPv2's test label too.
    """
    version = "v1" if label == "v1" else "v2"
    return _preparation(label, settings.label_params(config, version))


@functools.cache
def _preparation(
    label: str, labelling: PurifyParams
) -> Callable[[Any], dict[str, Any]]:
    def prepare(batch: Any) -> dict[str, Any]:
        stack = jnp.moveaxis(batch["lq"].astype(jnp.float32), 1, -1)
        middle = stack.shape[-1] // 2
        lq, gt = stack[..., middle], batch["gt"][:, middle].astype(jnp.float32)
        images = {"lq": stack, "spacing_mm": batch["spacing_mm"]}
        if "output" in batch:
            images["output"] = batch["output"].astype(jnp.float32)
        if label == "gt":
            images["reference"] = gt
        else:
            rngs = example_rngs(0, batch["slice"].astype(jnp.uint32))  # nothing drawn
            made = purify(rngs, lq, gt, batch["spacing_mm"], labelling).gt_bar
            if label == "truth":
                images["reference"] = batch["truth"].astype(jnp.float32)
                images["label"] = made
            else:
                images["reference"] = made
        return images | {"regions": regions(images["reference"])._asdict()}

    return prepare
