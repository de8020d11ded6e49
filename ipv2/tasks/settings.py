"""The objects that an IPv2 config describes.

`SimulateSettings` and `PurifySettings` are all of a config that the work on a volume or
a pair sees, but for batch sizes. So they decide the result, and its record holds them.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any

import optax

from common import config as c
from common.config import ConfigDict
from common.nested import flatten
from common.schedules import create_schedule
from ipv2.ct_io import Match, ReadOptions
from ipv2.datasets.splits import Deal
from ipv2.kernels.photon_noise import DoseParams
from ipv2.models import FLOWS
from ipv2.purification.purify import PurifyParams
from ipv2.tasks.rules import RULES, SIMULATE_RULES
from ipv2.training.denoiser import Denoiser
from ipv2.training.denoiser_spec import DenoiserSpec, Sampling

# Keys that decide no result of a training. A resumed run may change them.
FREE_TO_CHANGE = (
    *("task", "strict", "data.cache", "data.multiframe"),
    *("purify.output", "purify.overwrite"),
    *("compare", "denoise"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSettings:
    """How the files of a task are read and written; `config.data` in messages.

    Attributes:
      reading: options of the reader.
      multi_frame: whether a DICOM series is written as one multi-frame file.
    """

    reading: ReadOptions
    multi_frame: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateSettings:
    """All of a config that decides what task simulate makes of a volume.

    Attributes:
      seed: seed of the noise.
      calibrate: whether the scanner is calibrated on each volume. Then of `noise` only
        the doses, the electronic variance and the views count.
      noise: the noise model, with both doses.
      files: how volumes are read and written.
    """

    seed: int
    calibrate: bool
    noise: DoseParams
    files: FileSettings

    def by_key(self) -> dict[str, Any]:
        """Returns all but `files` by config key, as records hold it."""
        doses = {f"noise.{key}": key for key in ("dose", "input_dose")}
        return _by_key(self, SIMULATE_RULES, doses)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PurifySettings:
    """All of a config that decides what task purify makes of a pair.

    Attributes:
      seed: seed of the noise.
      match: which slices belong together, by 'position' or by 'index'.
      purify: the purification.
      files: how volumes are read and written.
    """

    seed: int
    match: Match
    purify: PurifyParams
    files: FileSettings

    def by_key(self) -> dict[str, Any]:
        """Returns all but `files` by config key, as records hold it."""
        return _by_key(self, RULES, {"match": "data.match", "purify.dose": "noise"})


def _by_key(
    settings: SimulateSettings | PurifySettings,
    keys: Collection[str],
    renamed: Mapping[str, str],
) -> dict[str, Any]:
    """The fields that a config sets; the others have the same value for all configs.

    Args:
      settings: of a task.
      keys: all keys of its config.
      renamed: the keys of fields, or of fields of fields, with another name.
    """
    found = {}
    for field, value in flatten(dataclasses.asdict(settings)):
        key = field
        for name, other in renamed.items():
            if f"{field}.".startswith(f"{name}."):
                key = other + field.removeprefix(name)
        if key in keys:
            # In a config 0 stands for None.
            found[f"config.{key}"] = 0 if value is None else value
    return found


def simulate_settings(config: ConfigDict) -> SimulateSettings:
    """Returns the settings of a checked config of the recipe `simulate`."""
    noise = DoseParams(dose=config.dose, input_dose=config.input_dose, **_noise(config))
    return SimulateSettings(
        seed=config.seed,
        calibrate=config.calibrate,
        noise=noise,
        files=file_settings(config),
    )


def purify_settings(config: ConfigDict) -> PurifySettings:
    """Returns the settings of a checked config for task purify.

    Raises:
      ValueError: as `purify_params`.
    """
    return PurifySettings(
        seed=config.seed,
        match=config.data.match,
        purify=purify_params(config),
        files=file_settings(config),
    )


def file_settings(config: ConfigDict) -> FileSettings:
    """Returns the settings of `config.data` for reading and writing files."""
    return FileSettings(
        reading=read_options(config), multi_frame=config.data.multiframe
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


def needs_spacing(purify: ConfigDict | PurifyParams) -> bool:
    """Returns whether the purification needs the size of a pixel.

    Args:
      purify: `config.purify`, or what it describes.
    """
    return purify.version == "v2" and purify.add_noise == "physical"


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
    return DoseParams(**_noise(config))


def _noise(config: ConfigDict) -> dict[str, Any]:
    noise = config.noise.to_dict()
    return noise | {key: noise[key] or None for key in ("views", "source_distance_mm")}


def purify_params(config: ConfigDict) -> PurifyParams:
    """Returns the purification that `config.purify` and `config.noise` describe.

    Raises:
      ValueError: the version is "none".
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
    """Returns the purification that makes IPv2's test label.

    It does not depend on `version` and `add_noise`, which compose training pairs. So
    runs that differ in those are measured against the same label.
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

    A width of 0 and `remat` False are left out: the network's defaults count, and a
    network may lack these attributes.
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
