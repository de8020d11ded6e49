"""The values that each key of an ACQ config accepts, but those of its teacher."""

from collections.abc import Mapping
from typing import Any, get_args

from acq.datasets.decoding import INTERPOLATIONS
from acq.datasets.settings import SPLITS
from acq.kernels.fake_quant import Gradient
from acq.kernels.grid import MAX_BITS, MIN_BITS
from acq.layers.bits import BITS_WORDS, parse_layers
from acq.layers.observed import RANGE_METHODS
from acq.samples.observation import ATTENTION_FORMS
from acq.tasks.baselines import BASELINES
from acq.training.ranges import RANGE_SOURCES
from common import config as c
from common.errors import UserError

_BITS = c.whole(MIN_BITS, MAX_BITS)
_BITS_OR_NONE = c.Rule(lambda v: v == 0 or _BITS.accepts(v), f"0, or {_BITS.words}")
_WEIGHT = c.number(at_least=0)
_DURATION = c.Rule(lambda v: _is_duration(v), "such as '500 steps' or '2.5 epochs'")
_DURATION_OR_NONE = c.Rule(
    lambda v: v == "" or _is_duration(v), f"{_DURATION.words}, or '' for none"
)
_DURATIONS = c.Rule(
    lambda v: isinstance(v, tuple) and all(map(_is_duration, v)),
    "a tuple of durations, such as ('100 epochs', '200 epochs')",
)
_BASELINE = c.some_of(*BASELINES)

RULES: Mapping[str, c.Rule] = {
    "seed": c.whole(0, 2**31 - 1),
    "quantizer.weight_bits": _BITS,
    "quantizer.activation_bits": _BITS,
    "quantizer.other_bits": _BITS_OR_NONE,
    "quantizer.layers": c.Rule(lambda v: _is_layer_bits(v), BITS_WORDS),
    "quantizer.first_last_bits": _BITS_OR_NONE,
    "quantizer.budget_mb": c.number(at_least=0),
    "quantizer.symmetric_weights": c.boolean(),
    "quantizer.gradient": c.one_of(*get_args(Gradient)),
    "quantizer.range_source": c.one_of(*RANGE_SOURCES),
    "quantizer.range_method": c.one_of(*RANGE_METHODS),
    "quantizer.observe": _DURATION,
    "quantizer.decay": c.number(at_least=0, at_most=1),
    "generator.width": c.whole(2),
    "generator.latent": c.whole(1),
    "generator.epsilon": c.number(above=0),
    "generator.output": c.one_of("pixels", "tanh"),
    "generator.label": c.one_of("product", "norm"),
    "generator.class_spread": c.number(at_least=0),
    "generator.center": c.one_of("window", "heat_map", "latent", "none"),
    "generator.sigma": c.number(above=0),
    "generator.height": c.number(),
    "generator.reach": c.number(at_least=0, at_most=1),
    "generator.shift": c.whole(0),
    "generator.power": c.number(at_least=1),
    "generator.attention": c.one_of(*ATTENTION_FORMS),
    "generator.class_weight": _WEIGHT,
    "generator.statistics_weight": _WEIGHT,
    "generator.statistics_form": c.one_of("squared", "relative"),
    "generator.statistics_mode": c.one_of("eval", "train"),
    "generator.center_weight": _WEIGHT,
    "generator.center_ramp": _DURATION_OR_NONE,
    "generator.pair_weight": _WEIGHT,
    "generator.consistency_weight": _WEIGHT,
    "generator.learning_rate": c.number(above=0),
    "generator.schedule": c.one_of("cosine", "constant", "step"),
    "generator.warmup": _DURATION_OR_NONE,
    "generator.learns": c.boolean(),
    "generator.path": c.existing_path(),
    "student.optimizer": c.one_of("adam", "sgd"),
    "student.learning_rate": c.number(above=0),
    "student.schedule": c.one_of("cosine", "constant", "step"),
    "student.weight_decay": c.number(at_least=0),
    "student.class_weight": _WEIGHT,
    "student.kl_weight": _WEIGHT,
    "student.kl_mean": c.one_of("samples", "samples_and_classes"),
    "student.temperature": c.number(above=0),
    "student.hint_weight": _WEIGHT,
    "train.duration": _DURATION,
    "train.log": _DURATION,
    "train.evaluate": _DURATION,
    "train.save": _DURATION,
    "train.one_loop": c.boolean(),
    "train.decay_at": _DURATIONS,
    "train.epoch_steps": c.whole(1),
    "train.batch_size": c.whole(2),
    "train.looked_at": c.whole(1),
    "baselines.run": c.Rule(
        lambda v: v == () or _BASELINE.accepts(v), f"(), or {_BASELINE.words}"
    ),
    "baselines.batches": c.whole(1),
}
"""Rules of the quantization."""

EVAL_RULES: Mapping[str, c.Rule] = {
    "eval.path": c.existing_path(),
    "eval.dataset": c.one_of("", "digits", *SPLITS),
    "eval.split": c.text(),
    "eval.classes": c.existing_path(),
    "eval.resize": c.number(at_least=0, at_most=1),
    "eval.interpolation": c.one_of(*INTERPOLATIONS),
    "eval.limit": c.whole(0),
    "eval.batch_size": c.whole(1),
}
"""Rules of the images that a run is evaluated on."""

DIGITS_RULES: Mapping[str, c.Rule] = {
    "digits.width": c.whole(1, 256),
    "digits.train_steps": c.whole(2),
    "digits.batch_size": c.whole(1),
    "digits.learning_rate": c.number(above=0),
    "digits.shift": c.whole(0, 8),
}
"""Rules of the digits' teacher."""


def _is_layer_bits(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parse_layers(value)
    except ValueError:
        return False
    return True


def _is_duration(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return False
    try:
        c.to_steps(value, 1.0, "")
    except UserError:
        return False
    return True
