"""From a config of task quantize_denoiser to its settings, after a check."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, get_args

from acq.denoisers.bounds import LAST_BOUND
from acq.denoisers.settings import (
    ImageGeneratorSettings,
    ImageQuantizationSettings,
    ImageStudentSettings,
)
from acq.denoisers.steps import ImageStudentLoss
from acq.kernels.grid import MAX_BITS, MIN_BITS
from acq.layers.observed import RANGE_METHODS, RangeMethod
from acq.samples.generator import CenterForm
from acq.training.losses import StatisticsForm
from acq.training.step_parts import GeneratorLoss
from common import config as c
from common.config import ConfigDict, to_steps
from common.errors import UserError

# Keys that decide no result. A resumed run may change them.
FREE_TO_CHANGE = ("task", "data.cache")

GENERATED = "generated"
RANGES = (GENERATED, "noise", "statistics", "phantom", "noisy_phantom", "real")

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_BITS = c.whole(MIN_BITS, MAX_BITS)
_WEIGHT = c.number(at_least=0)
_BASELINES = c.some_of(*RANGES)
_DATASETS = c.some_of("sample_ct", "phantom")


def _is_duration(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return False
    try:
        to_steps(value, 1.0, "")
    except UserError:
        return False
    return not str(value).endswith(("epoch", "epochs"))


_DURATION = c.Rule(_is_duration, "such as '500 steps'; there are no epochs")

RULES: Mapping[str, c.Rule] = {
    "seed": c.whole(0, 2**31 - 1),
    "teacher.open": c.Rule(
        lambda v: isinstance(v, str) and bool(_FUNCTION.fullmatch(v)),
        "'package.module:function'",
    ),
    "teacher.export": c.existing_path(),
    "quantizer.weight_bits": _BITS,
    "quantizer.activation_bits": _BITS,
    "quantizer.first_last_bits": c.Rule(
        lambda v: v == 0 or _BITS.accepts(v), f"0, or {_BITS.words}"
    ),
    "quantizer.ranges": c.one_of(*RANGES),
    "quantizer.range_method": c.one_of(*RANGE_METHODS),
    "generator.image_size": c.whole(8),
    "generator.width": c.whole(2),
    "generator.latent": c.whole(1),
    "generator.center": c.one_of(*get_args(CenterForm)),
    "generator.reach": c.number(at_least=0, at_most=1),
    "generator.power": c.number(at_least=1),
    "generator.statistics_weight": _WEIGHT,
    "generator.statistics_form": c.one_of(*get_args(StatisticsForm)),
    "generator.center_weight": _WEIGHT,
    "generator.pair_weight": _WEIGHT,
    "generator.consistency_weight": _WEIGHT,
    "generator.first_bound": c.number(above=0, at_most=LAST_BOUND),
    "generator.learning_rate": c.number(above=0),
    "generator.duration": _DURATION,
    "student.learning_rate": c.number(above=0),
    "student.output_weight": _WEIGHT,
    "student.hint_weight": _WEIGHT,
    "student.duration": _DURATION,
    "train.batch_size": c.whole(2),
    "train.log": _DURATION,
    "train.save": _DURATION,
    "baselines.run": c.Rule(
        lambda v: v == () or _BASELINES.accepts(v), f"(), or {_BASELINES.words}"
    ),
    "baselines.images": c.whole(1),
    "judge.embedded": _DATASETS,
    "judge.size": c.whole(32, 1024),
    "judge.slices": c.whole(0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserTaskSettings:
    """All settings of a config.

    Attributes:
      opener: 'package.module:function' that opens the network.
      export: its argument.
      options: its keyword arguments.
      quantization: generator and student.
      weight_bits: of convolutions, but the first and last.
      activation_bits: of their inputs.
      first_last_bits: of the first and the last; 0: as others.
      ranges: where ranges come from, one of `RANGES`.
      range_method: how a range is chosen from values.
      baselines: other sources of ranges to compare with.
      images: that give the ranges.
    """

    opener: str
    export: str
    options: Mapping[str, Any]
    quantization: ImageQuantizationSettings
    weight_bits: int
    activation_bits: int
    first_last_bits: int
    ranges: str
    range_method: RangeMethod
    baselines: tuple[str, ...]
    images: int


def denoiser_settings(config: ConfigDict) -> DenoiserTaskSettings:
    """Returns the settings of a config.

    Raises:
      UserError: a value is not accepted, or values do not fit together; it names all.
    """
    c.refuse(c.rule_problems(config, RULES) or _problems(config))
    quantizer = dict(config.quantizer)
    return DenoiserTaskSettings(
        opener=config.teacher.open,
        export=config.teacher.export,
        options={
            "cache": config.data.cache,
            "embedded": tuple(config.judge.embedded),
            "size": config.judge.size,
            "limit": config.judge.slices,
        },
        quantization=_quantization(config),
        baselines=tuple(config.baselines.run),
        images=config.baselines.images,
        **quantizer,
    )


def _problems(config: ConfigDict) -> list[str]:
    generator, student, found = config.generator, config.student, []
    if generator.center == "none" and generator.center_weight:
        found.append(
            f"generator.center_weight: got {generator.center_weight} with "
            "generator.center='none', which shows the generator no centre: give "
            "'window', 'heat_map' or 'latent', or a weight of 0"
        )
    terms = [f"{name}_weight" for name in ("statistics", "center", "pair")]
    if not any(generator[term] for term in [*terms, "consistency_weight"]):
        found.append(f"generator: {', '.join(terms)}, consistency_weight: all 0")
    terms = [f"{name}_weight" for name in ("output", "hint")]
    if not any(student[term] for term in terms):
        found.append(f"student: {', '.join(terms)}: all 0, so it learns nothing")
    if config.train.batch_size % 2:
        found.append(
            f"train.batch_size: got {config.train.batch_size}, accepted: an even "
            "number, since samples come in pairs"
        )
    return found


def _quantization(config: ConfigDict) -> ImageQuantizationSettings:
    generator, student, train = config.generator, config.student, config.train
    loss = GeneratorLoss(
        class_weight=0.0,
        statistics_weight=generator.statistics_weight,
        statistics_form=generator.statistics_form,
        center_weight=generator.center_weight,
        power=generator.power,
        pair_weight=generator.pair_weight,
        consistency_weight=generator.consistency_weight,
    )
    return ImageQuantizationSettings(
        seed=config.seed,
        image_size=generator.image_size,
        generator=ImageGeneratorSettings(
            width=generator.width,
            latent=generator.latent,
            center=generator.center,
            reach=generator.reach,
            first_bound=generator.first_bound,
            learning_rate=generator.learning_rate,
            loss=loss,
        ),
        student=ImageStudentSettings(
            learning_rate=student.learning_rate,
            loss=ImageStudentLoss(
                output_weight=student.output_weight,
                hint_weight=student.hint_weight,
            ),
        ),
        generator_steps=to_steps(generator.duration, 1, "generator.duration"),
        student_steps=to_steps(student.duration, 1, "student.duration"),
        batch_size=train.batch_size,
        log=to_steps(train.log, 1, "train.log"),
        save=to_steps(train.save, 1, "train.save"),
    )
