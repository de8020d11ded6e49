"""From a checked config to the settings of everything that a task does.

`TaskSettings` is all that a task sees of a config. Whether a command goes on with the
run in its workdir is decided by the config itself (`common.run`), not by these objects:
the config is what `config.json` holds, and its keys are what a message has to name.
"""

import dataclasses
from pathlib import Path

from acq.datasets.settings import EvalDataSettings
from acq.layers.bits import parse_layers
from acq.quantization.settings import (
    GeneratorSettings,
    QuantizationSettings,
    QuantizerSettings,
    StudentSettings,
    TrainSettings,
)
from acq.tasks.baselines import BaselineSettings
from acq.teacher.digits_training import DigitsSettings
from acq.teacher.settings import TeacherSettings
from common.config import ConfigDict, to_steps

# Keys that decide no result. A resumed run may change them.
FREE_TO_CHANGE = ("task", "data.cache", "eval.batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """All settings of a config.

    Attributes:
      quantization: all that decides the student, but its teacher.
      generator_path: the folder of another run's generator to start from, or None.
      teacher: the float network.
      digits: the training of the digits' teacher; None where the recipe has none.
      evaluation: the images to evaluate on.
      baselines: the networks to compare with.
    """

    quantization: QuantizationSettings
    generator_path: Path | None
    teacher: TeacherSettings
    digits: DigitsSettings | None
    evaluation: EvalDataSettings
    baselines: BaselineSettings


def task_settings(config: ConfigDict) -> TaskSettings:
    """Returns the settings of a config that `check` accepts."""
    path = config.generator.path
    return TaskSettings(
        quantization=quantization_settings(config),
        generator_path=Path(path) if path else None,
        teacher=teacher_settings(config),
        digits=DigitsSettings(**config.digits) if "digits" in config else None,
        evaluation=EvalDataSettings(**config.eval, cache=config.data.cache),
        baselines=BaselineSettings(**config.baselines),
    )


def teacher_settings(config: ConfigDict) -> TeacherSettings:
    """Returns the settings of `config.teacher`."""
    return TeacherSettings(**config.teacher)


def quantization_settings(config: ConfigDict) -> QuantizationSettings:
    """Returns the settings of quantizer, generator, student and training."""
    quantizer, generator = dict(config.quantizer), dict(config.generator)
    layers = parse_layers(quantizer.pop("layers"))
    del quantizer["observe"], generator["warmup"]
    path = generator.pop("path")
    generator["center_ramp"] = _steps(config, "generator.center_ramp")
    return QuantizationSettings(
        seed=config.seed,
        quantizer=QuantizerSettings(
            **quantizer,
            layers=tuple(layers.items()),
            observe_steps=_steps(config, "quantizer.observe"),
        ),
        generator=GeneratorSettings(**generator, is_given=bool(path)),
        student=StudentSettings(**config.student),
        train=_train_settings(config),
    )


def _train_settings(config: ConfigDict) -> TrainSettings:
    train = config.train
    return TrainSettings(
        generator_steps=_steps(config, "generator.warmup"),
        steps=_steps(config, "train.duration"),
        one_loop=train.one_loop,
        decay_at=tuple(
            to_steps(duration, train.epoch_steps, "train.decay_at")
            for duration in train.decay_at
        ),
        batch_size=train.batch_size,
        looked_at=train.looked_at,
        log=_steps(config, "train.log"),
        evaluate=_steps(config, "train.evaluate"),
        save=_steps(config, "train.save"),
    )


def _steps(config: ConfigDict, key: str) -> int:
    """The duration at a key such as "generator.warmup", in steps; "" is 0."""
    section, name = key.split(".")
    duration = config[section][name]
    if duration == "":
        return 0
    return to_steps(duration, config.train.epoch_steps, key)
