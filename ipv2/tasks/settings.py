"""The objects that an IPv2 config describes."""

import functools
from typing import Any

import optax

from common import config as c
from common.config import ConfigDict
from common.schedules import create_schedule
from ipv2.ct_io import ReadOptions
from ipv2.datasets.embedded import EmbeddedSplits
from ipv2.datasets.splits import Deal
from ipv2.kernels.drawn_scans import ScanRanges
from ipv2.kernels.photon_noise import DoseParams
from ipv2.models import FLOWS
from ipv2.purification import purify
from ipv2.purification.purify import PurifyParams
from ipv2.training.denoiser import Denoiser
from ipv2.training.denoiser_spec import DenoiserSpec, Sampling
from ipv2.training.pairs import PairParams

# Keys that decide no result of a training. A resumed run may change them.
FREE_TO_CHANGE = (
    *("task", "strict", "data.cache", "data.multiframe"),
    *("purify.output", "purify.overwrite", "purify.volume"),
    *("compare", "denoise", "evaluate.outputs", "evaluate.png"),
    *("model.weights", "model.window"),
)

# Keys of `config.model` for task export alone: no attributes of a network.
EXPORTED = ("weights", "window")

# Keys of `config.noise` that training draws scans from: not of one scanner.
DRAWN = (
    *("dose_range", "photons_range", "cutoff_range", "current_range"),
    "target_dose",
)


def deal(config: ConfigDict) -> Deal:
    """Returns how `config.data` deals patients to the splits."""
    data = config.data
    return Deal(
        seed=config.seed,
        fractions=tuple(data.split),
        by=data.split_by,
        val_patients=tuple(data.val_patients),
        test_patients=tuple(data.test_patients),
    )


def embedded_splits(config: ConfigDict) -> EmbeddedSplits:
    """Returns how `config.data` splits the embedded data sets."""
    data = config.data
    return EmbeddedSplits(
        seed=config.seed,
        sample_slices=tuple(data.sample_slices),
        sample_val=tuple(data.sample_val),
        sample_test=tuple(data.sample_test),
        deal=deal(config),
        phantom_patients=tuple(data.phantom_patients),
        phantom_slices=data.phantom_slices,
    )


def read_options(config: ConfigDict) -> ReadOptions:
    """Returns the options of `config.data` for reading files."""
    data = config.data
    return ReadOptions(
        series=data.series,
        window=tuple(data.window) if data.window[1] else None,
        pixel_mm=data.pixel_mm,
        gaps=data.gaps,
        trust_hu=data.trust_hu,
    )


def dose_params(config: ConfigDict) -> DoseParams:
    """Returns the noise model of a training recipe: `config.noise`, with both doses."""
    return DoseParams(**scanner_of(config))


def scanner_of(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields of `DoseParams` in `config.noise`, where 0 stands for None."""
    noise = {k: v for k, v in config.noise.items() if k not in DRAWN}
    return noise | {key: noise[key] or None for key in ("views", "source_distance_mm")}


def pair_params(config: ConfigDict, target_dose: float = 0.0) -> PairParams:
    """Returns how `config.purify` and `config.noise` make training pairs."""
    version = config.purify.version
    if version in purify.VERSIONS:
        return PairParams(kind="purified", purification=purify_params(config))
    if version in ("none", "registered"):  # the data are registered before
        return PairParams(kind="none")
    ranges = scan_ranges(config, target_dose) if version == "simulated" else None
    return PairParams(kind=version, dose=dose_params(config), ranges=ranges)


def scan_ranges(config: ConfigDict, target_dose: float) -> ScanRanges | None:
    """Returns what `config.noise` draws scans from; None if it draws nothing.

    Args:
      config: the whole config.
      target_dose: one of `config.noise.target_dose`.
    """
    noise = config.noise
    ranges = {
        name: tuple(noise[f"{name}_range"])
        for name in ("dose", "photons", "cutoff", "current")
        if any(noise[f"{name}_range"])
    }
    if not ranges and not target_dose:
        return None
    return ScanRanges(**ranges, target_dose=target_dose or None)


def purify_params(config: ConfigDict) -> PurifyParams:
    """Returns the purification that `config.purify` and `config.noise` describe.

    Raises:
      ValueError: the version is "none".
    """
    options = config.purify
    return PurifyParams(
        version=options.version,
        variant=options.variant,
        window=tuple(options.window),
        t=options.t,
        remove_background=options.remove_background,
        align_contour=options.align_contour,
        add_noise=options.add_noise,
        remove_noise=options.remove_noise,
        dose=dose_params(config),
    )


def label_params(config: ConfigDict, version: str = "v2") -> PurifyParams:
    """Returns the purification that makes the test label of IPv2, or of IPv1.

    It does not depend on `purify.version` and `add_noise`, which compose training
    pairs. So runs that differ in those are measured against the same label.

    Args:
      config: the whole config.
      version: whose label, 'v1' or 'v2'.
    """
    options = config.purify
    return PurifyParams(
        version=version,
        variant=options.variant,
        window=tuple(options.window),
        remove_background=options.remove_background,
        add_noise="none",
        remove_noise=options.remove_noise,
    )


def denoiser_spec(config: ConfigDict) -> DenoiserSpec:
    """Returns the denoiser of `config.model` and `config.flow`, as exports hold it.

    A width of 0 and `remat` False are left out: the network's defaults count, and a
    network may lack these attributes.
    """
    attributes = {
        key: value
        for key, value in config.model.to_dict().items()
        if key not in EXPORTED and (key not in ("width", "remat") or value)
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
    """Returns how a flow is followed by `config.flow`."""
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
      total_steps: steps of the run; a cosine ends there.
      steps_per_epoch: examples over slices per step, for durations in epochs.
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
    """The same object for the same settings, so that a step compiles once."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.adam(create_schedule(schedule, **options)),
    )
