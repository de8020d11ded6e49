"""The objects that an IPv2 config describes."""

import functools
from typing import Any

import optax

from common import config as c
from common.config import ConfigDict
from common.schedules import create_schedule
from ipv2.ct_io import ReadOptions
from ipv2.datasets.splits import Deal
from ipv2.kernels.photon_noise import DoseParams
from ipv2.models import FLOWS
from ipv2.purification.purify import PurifyParams
from ipv2.training.denoiser import Denoiser
from ipv2.training.denoiser_spec import DenoiserSpec, Sampling


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
