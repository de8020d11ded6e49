"""The values that each key of an IPv2 config accepts."""

import math
import re
from typing import Any

import numpy as np

from common import config as c
from ipv2.inference.onnx_runtimes import RUNTIMES
from ipv2.kernels import reconstruction_filter
from ipv2.kernels.reconstruction_filter import LARGEST_CUTOFF
from ipv2.measures.filters import FILTERS
from ipv2.models import MODELS, OWN_NAME
from ipv2.purification.purify import VERSIONS
from ipv2.training.denoiser_spec import DTYPES
from ipv2.training.flow import SAMPLERS
from ipv2.training.losses import LOSSES

DATASETS = ("sample_ct", "phantom")
# The value of `denoise.model` for the network in `weights`.
SHIPPED = "shipped"
# What images are measured against, see `references`.
LABELS = ("truth", "gt", "v1", "v2")
PAIR_VERSIONS = ("none", *VERSIONS, "registered", "simulated", "gated", "weighted")


def _sizes(count: int, at_least: int) -> c.Rule:
    whole = c.whole(at_least)
    return c.Rule(
        lambda v: (
            isinstance(v, tuple) and len(v) == count and all(map(whole.accepts, v))
        ),
        f"{count} whole numbers, each at least {at_least}",
    )


def _fractions() -> c.Rule:
    share = c.number(at_least=0, at_most=1)
    return c.Rule(
        lambda v: (
            isinstance(v, tuple)
            and len(v) == 3
            and all(map(share.accepts, v))
            and abs(sum(v) - 1) < 1e-6
        ),
        "three shares (train, val, test) that sum to 1",
    )


def _names() -> c.Rule:
    return c.Rule(
        lambda v: (
            isinstance(v, tuple)
            and all(isinstance(name, str) and name for name in v)
            and len(set(v)) == len(v)
        ),
        "a tuple of names, each once",
    )


def _or_none(rule: c.Rule) -> c.Rule:
    """A key that may be left out."""
    return c.Rule(lambda v: v is None or rule.accepts(v), rule.words)


def _filters() -> c.Rule:
    return c.Rule(
        lambda v: (
            isinstance(v, tuple) and set(v) <= set(FILTERS) and len(set(v)) == len(v)
        ),
        f"a tuple of some of {', '.join(FILTERS)}, or () for none",
    )


def _name_pattern() -> c.Rule:
    def accepts(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return not value or re.compile(value).groups > 0
        except re.error:
            return False

    return c.Rule(accepts, "'' or a regular expression with a group, (...)")


def _shares() -> c.Rule:
    share = c.number(above=0, at_most=1)
    return c.Rule(
        lambda v: (
            isinstance(v, tuple)
            and all(map(share.accepts, v))
            and bool((np.diff(v) > 0).all())
        ),
        "rising shares of the run, each above 0 and below 1",
    )


def _window(*, or_grey: bool = True) -> c.Rule:
    number = c.number()
    return c.Rule(
        lambda v: (
            isinstance(v, tuple)
            and len(v) == 2
            and all(map(number.accepts, v))
            and (v[1] > 0 or (or_grey and v == (0.0, 0.0)))
        ),
        "(centre, width) in HU with a width above 0"
        + (", or (0, 0) for grey levels" if or_grey else ""),
    )


def _factors() -> c.Rule:
    factor = c.number(at_least=0, at_most=100)
    return c.Rule(
        lambda v: isinstance(v, tuple) and len(v) != 1 and all(map(factor.accepts, v)),
        "two factors or more, each from 0 to 100, or ()",
    )


def _tuple_of(one: c.Rule) -> c.Rule:
    return c.Rule(
        lambda v: isinstance(v, tuple) and bool(v) and all(map(one.accepts, v)),
        f"a tuple such as (1,), each of it {one.words}",
    )


def _slice_numbers() -> c.Rule:
    number = c.whole(0)
    return c.Rule(
        lambda v: isinstance(v, tuple) and all(map(number.accepts, v)),
        "numbers of slices such as (40, 41), or () for those of config.data.split",
    )


def _first_end() -> c.Rule:
    number = c.whole(0)
    return c.Rule(
        lambda v: (
            isinstance(v, tuple)
            and len(v) == 2
            and all(map(number.accepts, v))
            and v[0] < v[1]
        ),
        "(first, end) with 0 <= first < end",
    )


def _range(at_most: float = math.inf) -> c.Rule:
    number = c.number(above=0, at_most=at_most)
    most = f", at most {at_most}" if math.isfinite(at_most) else ""
    return c.Rule(
        lambda v: (
            isinstance(v, tuple)
            and len(v) == 2
            and (v == (0.0, 0.0) or (all(map(number.accepts, v)) and v[0] <= v[1]))
        ),
        f"(low, high) with 0 < low <= high{most}, or (0, 0) to draw nothing",
    )


def _network_folder() -> c.Rule:
    path = c.existing_path()
    return c.Rule(
        lambda v: v == SHIPPED or path.accepts(v),
        f"{path.words}, or {SHIPPED!r} for the network that comes with this software",
    )


def _network_name() -> c.Rule:
    ours = c.one_of(*MODELS)
    return c.Rule(
        lambda v: (
            ours.accepts(v)
            or (isinstance(v, str) and OWN_NAME.fullmatch(v) is not None)
        ),
        f"{ours.words}; or 'package.module:Class' for a network of yours",
    )


_READING = {
    "strict": c.boolean(),
    "data.series": c.text(),
    "data.window": _window(),
    "data.pixel_mm": c.number(at_least=0),
    "data.gaps": c.one_of("refuse", "allow"),
    "data.trust_hu": c.boolean(),
    "data.multiframe": c.boolean(),
}
_SCANNER = {
    "noise.photons": c.number(at_least=1),
    "noise.electronic_variance": c.number(at_least=0),
    "noise.views": c.whole(0),
    "noise.filter_name": c.one_of(*reconstruction_filter.FILTERS),
    "noise.cutoff": c.number(above=0, at_most=LARGEST_CUTOFF),
    "noise.window": _factors(),
    "noise.source_distance_mm": c.number(at_least=0),
    "noise.bowtie_mm": c.number(at_least=0),
}

RULES = {
    "seed": c.whole(0, 2**31 - 1),
    "data.root": c.existing_path(),
    "data.normal_dose": c.existing_path(),
    "data.embedded": c.some_of(*DATASETS),
    **_READING,
    "data.split": _fractions(),
    "data.split_by": c.one_of("patient", "slice"),
    "data.val_patients": _names(),
    "data.test_patients": _names(),
    "data.match": c.one_of("position", "index"),
    "data.name_pattern": _name_pattern(),
    "data.sample_slices": _first_end(),
    "data.sample_val": _slice_numbers(),
    "data.sample_test": _slice_numbers(),
    "data.phantom_size": c.whole(32, 4096),
    "data.phantom_patients": _sizes(3, 1),
    "data.phantom_slices": c.whole(1, 512),
    "purify.version": c.one_of(*PAIR_VERSIONS),
    "purify.variant": c.one_of("robust", "reference"),
    "purify.window": _window(),
    "purify.t": c.number(at_least=0, at_most=1),
    "purify.remove_background": c.boolean(),
    "purify.align_contour": c.boolean(),
    "purify.add_noise": c.one_of("none", "reference", "physical"),
    "purify.remove_noise": c.one_of("none", "tv", "gaussian", "median"),
    "purify.volume": _or_none(c.boolean()),
    "purify.overwrite": c.boolean(),
    "noise.dose": c.number(above=0, at_most=1),
    "noise.input_dose": c.number(above=0, at_most=1),
    **_SCANNER,
    "noise.dose_range": _range(at_most=1),
    "noise.photons_range": _range(),
    "noise.cutoff_range": _range(at_most=LARGEST_CUTOFF),
    "noise.current_range": _range(),
    "noise.target_dose": _tuple_of(c.number(at_least=0, at_most=1)),
    "model.name": _network_name(),
    "model.dtype": c.one_of(*DTYPES),
    "model.channels": c.Rule(
        lambda v: isinstance(v, int) and v > 0 and v % 2 == 1, "an odd number of slices"
    ),
    "model.width": c.whole(0),
    "model.remat": c.boolean(),
    "model.weights": c.existing_path(),
    "model.window": _window(or_grey=False),
    "flow.sampler": c.one_of(*SAMPLERS),
    "flow.steps": c.whole(1),
    "flow.time_scale": c.number(above=0),
    "flow.dropout_in_evaluation": c.boolean(),
    "optimizer.learning_rate": c.number(above=0),
    "optimizer.schedule": c.one_of("cosine", "step", "constant"),
    "optimizer.boundaries": _shares(),
    "optimizer.factor": c.number(above=0, at_most=1),
    "optimizer.clip_norm": c.number(at_least=0),
    "train.batch_size": c.whole(1),
    "train.loss": c.one_of(*LOSSES),
    "train.start": _network_folder(),
    "train.patch": c.whole(16),
    "train.patches_per_slice": c.whole(1),
    "train.shrink": _tuple_of(c.whole(1, 8)),
    "train.accumulate": c.whole(1),
    "train.ema": c.Rule(
        lambda v: c.number(at_least=0).accepts(v) and v < 1, "0 or a decay below 1"
    ),
    "evaluate.batch_size": c.whole(1),
    "evaluate.slices": c.whole(0),
    "evaluate.filters": _filters(),
    "evaluate.label": c.one_of("", *LABELS),
    "evaluate.outputs": c.existing_path(),
    "evaluate.png": c.text(),
    "evaluate.detail": _or_none(c.boolean()),
    "evaluate.features": _or_none(_names()),
    "compare.runs": c.Rule(
        lambda v: v == () or (_names().accepts(v) and len(v) > 1),
        "the folders of two finished runs or more, each once, or ()",
    ),
    "denoise.input": c.existing_path(),
    "denoise.output": c.text(),
    "denoise.embedded": c.one_of("", *DATASETS),
    "denoise.model": _network_folder(),
    "denoise.runtime": c.one_of(*RUNTIMES),
    "denoise.overwrite": c.boolean(),
    "denoise.batch_size": c.whole(1),
    "denoise.tile": c.whole(-1),
    "denoise.overlap": c.whole(-1),
}

SIMULATE_RULES = {
    "seed": c.whole(0, 2**31 - 1),
    "dose": c.number(above=0, at_most=1),
    "input_dose": c.number(above=0, at_most=1),
    "calibrate": c.boolean(),
    "overwrite": c.boolean(),
    "batch_size": c.whole(1),
    "data.input": c.existing_path(),
    "data.low": c.existing_path(),
    "data.low_dose": c.number(above=0, at_most=1),
    **_READING,
    "data.embedded": c.one_of("", *DATASETS),
    "data.phantom_size": c.whole(32, 1024),
    "data.phantom_slices": c.whole(1, 512),
    **_SCANNER,
}
