"""What an IPv2 config may hold, and the objects it describes."""

import functools
import re
from typing import Any

import numpy as np
import optax

from common import config as c
from common.config import ConfigDict
from common.errors import UserError
from common.schedules import create_schedule
from ipv2.ct_io import ReadOptions
from ipv2.datasets.splits import Deal
from ipv2.kernels.photon_noise import DoseParams
from ipv2.kernels.reconstruction_filter import FILTERS, LARGEST_CUTOFF
from ipv2.models import FLOWS, MODELS, OWN_NAME, attributes_of
from ipv2.purification.purify import PurifyParams
from ipv2.training.denoiser import Denoiser
from ipv2.training.denoiser_spec import DTYPES, DenoiserSpec, Sampling
from ipv2.training.flow import SAMPLERS
from ipv2.training.losses import LOSSES

DATASETS = ("sample_ct", "phantom")


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


def _window() -> c.Rule:
    number = c.number()
    return c.Rule(
        lambda v: (
            isinstance(v, tuple)
            and len(v) == 2
            and all(map(number.accepts, v))
            and (v[1] > 0 or v == (0.0, 0.0))
        ),
        "(centre, width) in HU with a width above 0, or (0, 0) for grey levels",
    )


def _factors() -> c.Rule:
    factor = c.number(at_least=0, at_most=100)
    return c.Rule(
        lambda v: isinstance(v, tuple) and len(v) != 1 and all(map(factor.accepts, v)),
        "two factors or more, each from 0 to 100, or ()",
    )


def _network_name() -> c.Rule:
    ours = c.one_of(*MODELS)
    return c.Rule(
        lambda v: (
            ours.accepts(v)
            or (isinstance(v, str) and OWN_NAME.fullmatch(v) is not None)
        ),
        f"{ours.words}; or 'package.module:Class' of your own",
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
    "noise.filter_name": c.one_of(*FILTERS),
    "noise.cutoff": c.number(above=0, at_most=LARGEST_CUTOFF),
    "noise.window": _factors(),
    "noise.source_distance_mm": c.number(at_least=0),
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
    "data.phantom_size": c.whole(32, 4096),
    "data.phantom_patients": _sizes(3, 1),
    "data.phantom_slices": c.whole(1, 512),
    "purify.version": c.one_of("none", "v1", "v2"),
    "purify.variant": c.one_of("robust", "reference"),
    "purify.window": _window(),
    "purify.t": c.number(at_least=0, at_most=1),
    "purify.remove_background": c.boolean(),
    "purify.align_contour": c.boolean(),
    "purify.add_noise": c.one_of("none", "reference", "physical"),
    "purify.remove_noise": c.one_of("none", "tv", "gaussian", "median"),
    "purify.overwrite": c.boolean(),
    "noise.dose": c.number(above=0, at_most=1),
    "noise.input_dose": c.number(above=0, at_most=1),
    **_SCANNER,
    "model.name": _network_name(),
    "model.dtype": c.one_of(*DTYPES),
    "model.channels": c.Rule(
        lambda v: isinstance(v, int) and v > 0 and v % 2 == 1, "an odd number of slices"
    ),
    "model.width": c.whole(0),
    "model.remat": c.boolean(),
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
    "train.patch": c.whole(16),
    "train.patches_per_slice": c.whole(1),
    "train.accumulate": c.whole(1),
    "train.ema": c.Rule(
        lambda v: c.number(at_least=0).accepts(v) and v < 1, "0 or a decay below 1"
    ),
    "evaluate.batch_size": c.whole(1),
    "evaluate.slices": c.whole(0),
    "denoise.input": c.existing_path(),
    "denoise.output": c.text(),
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


def check(config: ConfigDict) -> None:
    """Raises one error that names every problem of an IPv2 config.

    Raises:
      UserError: the config holds something that is not accepted.
    """
    problems = c.rule_problems(config, RULES)
    if not problems:
        train, data = config.train, config.data
        if train.batch_size % train.patches_per_slice:
            problems.append(
                f"train.batch_size: got {train.batch_size}, accepted: a multiple of "
                f"config.train.patches_per_slice ({train.patches_per_slice})"
            )
        if train.batch_size % train.accumulate:
            problems.append(
                f"train.accumulate: got {train.accumulate}, accepted: a divisor of "
                f"config.train.batch_size ({train.batch_size})"
            )
        if config.purify.align_contour and config.purify.variant == "reference":
            problems.append(
                "purify.align_contour: got True, accepted: False with "
                "config.purify.variant='reference', which follows the published steps"
            )
        problems += _model_problems(config)
        problems += [
            f"compare.{key}: no {name!r} in config.compare.{table}; it has: "
            f"{', '.join(config.compare[table])}"
            for key, table in (("pairs", "options"), ("models", "zoo"))
            for name in config.compare[key]
            if name not in config.compare[table]
        ]
        if data.root and data.normal_dose:
            problems.append("data.normal_dose: given with config.data.root; give one")
        problems += _deal_problems(data)
        if config.noise.dose > config.noise.input_dose:
            problems.append(
                f"noise.dose: got {config.noise.dose}, accepted: at most "
                f"config.noise.input_dose ({config.noise.input_dose})"
            )
        problems += _fan_problems(config)
    c.refuse(problems)


def _model_problems(config: ConfigDict) -> list[str]:
    """Lists what `config.model` asks of the network of that name and cannot be had."""
    name = config.model.name
    try:
        known = attributes_of(name)
    except UserError as error:  # of an own network
        return [str(error).removeprefix("config.")]
    problems = [
        f"model.{key}: {name} has none; it has {', '.join(sorted(known))}"
        for key, value in config.model.items()
        if key != "name" and value and key not in known
    ]
    if name in FLOWS and config.train.loss != "mse":
        problems.append(
            f"train.loss: got {config.train.loss!r}, accepted: 'mse', which is what a "
            f"flow ({name}) is trained on"
        )
    if not problems:
        try:
            denoiser_spec(config).check()
        except UserError as error:  # of an own network
            problems.append(f"model.name: {error}")
    return problems


def _deal_problems(data: ConfigDict) -> list[str]:
    """Lists what `config.data` says of the splits and cannot be had."""
    keys = ("data.val_patients", "data.test_patients")
    both = sorted(set(data.val_patients) & set(data.test_patients))
    problems = [f"{keys[1]}: {name!r} is in config.{keys[0]} too" for name in both]
    if not (data.val_patients or data.test_patients):
        return problems
    if data.split_by == "slice":
        problems.append(
            f"data.split_by: got 'slice' with config.{keys[0]} or config.{keys[1]}, "
            "accepted: 'patient'"
        )
    if not (data.root or data.normal_dose):
        problems.append(
            f"{keys[1]}, {keys[0]}: names for the patients of config.data.root or "
            "config.data.normal_dose; the embedded data have none"
        )
    return problems


def deal(config: ConfigDict) -> Deal:
    """Returns how `config.data` says that patients are dealt to the splits."""
    data = config.data
    return Deal(
        seed=config.seed,
        fractions=tuple(data.split),
        by=data.split_by,
        val_patients=tuple(data.val_patients),
        test_patients=tuple(data.test_patients),
    )


def needs_spacing(config: ConfigDict) -> bool:
    """Whether training pairs are composed with the size of a pixel."""
    purify = config.purify
    return purify.version == "v2" and purify.add_noise == "physical"


def read_options(config: ConfigDict) -> ReadOptions:
    """Returns how `config.data` says that files are read."""
    data = config.data
    return ReadOptions(
        series=data.series,
        window=tuple(data.window) if data.window[1] else None,
        pixel_mm=data.pixel_mm,
        gaps=data.gaps,
        trust_hu=data.trust_hu,
    )


def check_simulate(config: ConfigDict) -> None:
    """Raises one error that names every problem of a config of `simulate`.

    Raises:
      UserError: the config holds something that is not accepted.
    """
    problems = c.rule_problems(config, SIMULATE_RULES)
    if not problems:
        if config.dose > config.input_dose:
            problems.append(
                f"dose: got {config.dose}, accepted: at most config.input_dose "
                f"({config.input_dose}), since noise can only be added"
            )
        if config.calibrate and config.noise.source_distance_mm:
            problems.append(
                "noise.source_distance_mm: given with config.calibrate, which knows "
                "parallel beams only; give one"
            )
        problems += _fan_problems(config)
    c.refuse(problems)


def _fan_problems(config: ConfigDict) -> list[str]:
    if config.noise.source_distance_mm and config.noise.views in (1, 2):
        return [f"noise.views: got {config.noise.views}, a fan beam needs 3 (or 0)"]
    return []


def dose_params(config: ConfigDict) -> DoseParams:
    """Returns the noise model of a recipe: `config.noise`, with both doses in it."""
    return DoseParams(**_noise(config))


def simulated_dose_params(config: ConfigDict) -> DoseParams:
    """Returns the noise model of `simulate`: `config.noise`, the doses beside it."""
    return DoseParams(dose=config.dose, input_dose=config.input_dose, **_noise(config))


def _noise(config: ConfigDict) -> dict[str, Any]:
    noise = config.noise.to_dict()
    return noise | {key: noise[key] or None for key in ("views", "source_distance_mm")}


def purify_params(config: ConfigDict) -> PurifyParams:
    """Returns the purification that `config.purify` and `config.noise` describe.

    Raises:
      ValueError: the version is "none": there is nothing to purify.
    """
    purify = config.purify
    return PurifyParams(
        version=purify.version,
        variant=purify.variant,
        window=tuple(purify.window),
        t=purify.t,
        remove_background=purify.remove_background,
        align_contour=purify.align_contour,
        add_noise=purify.add_noise,
        remove_noise=purify.remove_noise,
        dose=dose_params(config),
    )


def label_params(config: ConfigDict) -> PurifyParams:
    """Returns what makes IPv2's test label, whatever the training pairs are.

    `version` and `add_noise`, which compose training pairs, do not touch it, so runs
    that differ in those are measured against the same label.
    """
    purify = config.purify
    return PurifyParams(
        version="v2",
        variant=purify.variant,
        window=tuple(purify.window),
        remove_background=purify.remove_background,
        add_noise="none",
        remove_noise=purify.remove_noise,
    )


def denoiser_spec(config: ConfigDict) -> DenoiserSpec:
    """Returns the denoiser of `config.model` and `config.flow`, as exports hold it.

    A width of 0 and no remat leave the network's own value; a network that lacks the
    attribute does not mind.
    """
    attributes = {
        key: value
        for key, value in config.model.to_dict().items()
        if key not in ("width", "remat") or value
    }
    name = attributes.pop("name")
    is_flow = name in FLOWS
    if is_flow:
        attributes.setdefault("time_scale", config.flow.time_scale)
    return DenoiserSpec(
        name=name,
        dtype=attributes.pop("dtype"),
        channels=attributes.pop("channels"),
        attributes=attributes,
        sampling=sampling(config) if is_flow else None,
    )


def sampling(config: ConfigDict) -> Sampling:
    """Returns how `config.flow` says that flows are followed."""
    flow = config.flow
    return Sampling(
        sampler=flow.sampler,
        steps=flow.steps,
        dropout_in_evaluation=flow.dropout_in_evaluation,
    )


def denoiser(config: ConfigDict) -> Denoiser:
    """Returns the denoiser of `config.model`, with its loss or its sampler."""
    return denoiser_spec(config).create(loss=config.train.loss)


def optimizer(
    config: ConfigDict, total_steps: int, steps_per_epoch: float
) -> optax.GradientTransformation:
    """Returns Adam with the schedule and clipping of `config.optimizer`.

    Args:
      config: the whole config.
      total_steps: of the run; where a cosine ends.
      steps_per_epoch: examples over slices a step; for durations in epochs.
    """
    settings = config.optimizer
    is_step = settings.schedule == "step"
    warmup = settings.warmup
    return _adam(
        settings.schedule,
        settings.clip_norm,
        boundaries=tuple(
            round(share * total_steps) for share in settings.boundaries if is_step
        ),
        factor=settings.factor,
        peak=settings.learning_rate,
        total_steps=total_steps,
        warmup_steps=(
            c.to_steps(warmup, steps_per_epoch, "optimizer.warmup") if warmup else 0
        ),
    )


@functools.cache
def _adam(
    schedule: str, clip_norm: float, **options: Any
) -> optax.GradientTransformation:
    """The same object for the same settings, so that a step is known again."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.adam(create_schedule(schedule, **options)),
    )
