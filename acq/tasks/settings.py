"""What an ACQ config may hold, and the objects it describes."""

import dataclasses
import functools
import itertools
from typing import Any

import optax

from acq.classifier import Classifier
from acq.kernels.grid import MAX_BITS, MIN_BITS, Grid
from acq.layers.bits import (
    BITS_WORDS,
    Layer,
    LayerBits,
    all_bits,
    called_layers,
    choose_bits,
    parse_layers,
)
from acq.layers.float import FloatLayers
from acq.layers.observed import RANGE_METHODS, RangeLayers, RangeMethod
from acq.layers.quantized import Quantizer, QuantLayers
from acq.samples.generator import Generator
from acq.samples.observation import ATTENTION_FORMS
from acq.training.ranges import RANGE_SOURCES, RangeRule
from acq.training.step_parts import (
    GeneratorLoss,
    GeneratorParts,
    Sampling,
    StudentLoss,
    StudentParts,
)
from common import config as c
from common.config import ConfigDict
from common.devices import AXIS
from common.errors import UserError
from common.schedules import create_schedule

BASELINES = ("noise", "bn_statistics", "generated", "untrained", "real")
GRADIENTS = ("identity", "clipped", "learned")

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

RULES = {
    "seed": c.whole(0, 2**31 - 1),
    "quantizer.weight_bits": _BITS,
    "quantizer.activation_bits": _BITS,
    "quantizer.other_bits": _BITS_OR_NONE,
    "quantizer.layers": c.Rule(lambda v: _is_layer_bits(v), BITS_WORDS),
    "quantizer.first_last_bits": _BITS_OR_NONE,
    "quantizer.symmetric_weights": c.boolean(),
    "quantizer.gradient": c.one_of(*GRADIENTS),
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


def problems(config: ConfigDict) -> list[str]:
    """Lists what a config of the quantization holds that is not accepted."""
    found = c.rule_problems(config, RULES)
    if found:
        return found
    generator, student = config.generator, config.student
    if config.train.batch_size % 2:
        found.append(
            f"train.batch_size: got {config.train.batch_size}, accepted: an even "
            "number, since samples come in pairs"
        )
    if generator.center == "none" and generator.center_weight:
        found.append(
            f"generator.center_weight: got {generator.center_weight} with "
            "generator.center='none', which shows the generator no centre: give "
            "'window', 'heat_map' or 'latent', or a weight of 0"
        )
    if config.train.one_loop and not generator.learns:
        found.append(
            "train.one_loop: got True with generator.learns=False: in one loop the "
            "generator learns in every step; give generator.learns=True, or False here"
        )
    decay_at = _decay_steps(config, start=0)
    if any(b <= a for a, b in itertools.pairwise(decay_at)):
        found.append(
            f"train.decay_at: got {config.train.decay_at}, accepted: durations that "
            "grow"
        )
    terms = ("class", "statistics", "center", "pair", "consistency")
    if not any(generator[f"{term}_weight"] for term in terms):
        found.append(
            f"generator: the weights {', '.join(f'{term}_weight' for term in terms)} "
            "are all 0, so it has nothing to learn; give one of them a value"
        )
    if not (student.class_weight or student.kl_weight or student.hint_weight):
        found.append(
            "student.class_weight, kl_weight, hint_weight: all 0, so the student has "
            "nothing to learn; give one of them a weight"
        )
    return found


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


def to_steps(config: ConfigDict, key: str) -> int:
    """Returns the duration at `key`, as "generator.warmup", in steps; "" is 0."""
    section, name = key.split(".")
    duration = config[section][name]
    if duration == "":
        return 0
    return c.to_steps(duration, config.train.epoch_steps, key)


def alone_steps(config: ConfigDict) -> int:
    """Returns the steps of the generator in a phase of its own."""
    return 0 if config.train.one_loop else to_steps(config, "generator.warmup")


def waiting_steps(config: ConfigDict) -> int:
    """Returns the steps in one loop with the student before its first update."""
    return _warmup_steps(config) if config.train.one_loop else 0


def _warmup_steps(config: ConfigDict) -> int:
    """Of this run: a generator that is given has had its own elsewhere."""
    return 0 if config.generator.path else to_steps(config, "generator.warmup")


def _decay_steps(config: ConfigDict, *, start: int) -> tuple[int, ...]:
    """When rates fall, in steps of an optimiser whose first is the run's `start`."""
    epoch = config.train.epoch_steps
    durations = config.train.decay_at
    return tuple(c.to_steps(d, epoch, "train.decay_at") - start for d in durations)


def generator(config: ConfigDict, teacher: Classifier) -> Generator:
    """Returns the generator of images for a teacher.

    Raises:
      UserError: the teacher's images cannot be quartered, or would be shifted away,
        or the latent is too short for their colours.
    """
    settings, size = config.generator, teacher.record.image_size
    if size % 4:
        raise UserError(
            f"config.teacher.image_size: got {size}, accepted: a multiple of 4, since "
            "the generator enlarges its first features twice; give the next multiple, "
            "if the network takes it"
        )
    if settings.output == "pixels" and settings.latent <= teacher.record.channels:
        raise UserError(
            f"config.generator.latent: got {settings.latent}, accepted with "
            f"generator.output='pixels': above {teacher.record.channels}, since colour "
            "and contrast are numbers of the latent"
        )
    if settings.shift >= size:
        raise UserError(
            f"config.generator.shift: got {settings.shift}, accepted: below the "
            f"images' {size} pixels, or the teacher would see black alone"
        )
    return Generator(
        image_size=size,
        channels=teacher.record.channels,
        classes=teacher.record.classes,
        width=settings.width,
        label=settings.label,
        spread=settings.class_spread,
        center=settings.center,
        reach=settings.reach,
        sigma=settings.sigma,
        height=settings.height,
        epsilon=settings.epsilon,
        pixels=teacher.record.normalisation if settings.output == "pixels" else None,
        axis_name=AXIS,
    )


def sampling(config: ConfigDict, teacher: Classifier, *, alone: bool) -> Sampling:
    """Returns how conditions are drawn.

    In pairs where a generator learns from them; a student alone gets twice as many
    classes and centres from independent ones.

    Args:
      config: the whole config.
      teacher: whose classes are drawn.
      alone: whether for the warm-up, else for the steps beside the student.
    """
    settings = config.generator
    return Sampling(
        latent=settings.latent,
        classes=teacher.record.classes,
        reach=settings.reach,
        shift=settings.shift,
        paired=settings.pair_weight > 0 and (alone or settings.learns),
        seed=config.seed,
    )


def generator_parts(
    config: ConfigDict, teacher: Classifier, *, alone: bool
) -> GeneratorParts:
    """Returns what a generator step is made of.

    Args:
      config: the whole config.
      teacher: that is to recognise its images.
      alone: whether of the warm-up, else of the steps beside the student.
    """
    settings = config.generator
    own_schedule = alone or config.train.one_loop
    if alone:
        start, total = 0, to_steps(config, "generator.warmup")
    else:
        waits = waiting_steps(config)
        start = _warmup_steps(config) - waits
        total = waits + to_steps(config, "train.duration")
    return GeneratorParts(
        generator=generator(config, teacher),
        teacher=teacher.with_layers(FloatLayers(AXIS)),
        loss=GeneratorLoss(
            class_weight=settings.class_weight,
            statistics_weight=settings.statistics_weight,
            statistics_form=settings.statistics_form,
            statistics_mode=settings.statistics_mode,
            center_weight=settings.center_weight,
            center_ramp=(
                to_steps(config, "generator.center_ramp") if own_schedule else 0
            ),
            power=settings.power,
            pair_weight=settings.pair_weight,
            consistency_weight=settings.consistency_weight,
            attention=settings.attention,
        ),
        sampling=sampling(config, teacher, alone=alone),
        black=teacher.record.black,
        optimizer=_optimizer(
            "adam",
            settings.schedule if own_schedule else config.student.schedule,
            settings.learning_rate,
            max(1, total),  # a warm-up of no step has a schedule too
            decay_at=_decay_steps(config, start=start),
            first_moment=0.5,
        ),
    )


def uniform_layers(config: ConfigDict) -> QuantLayers:
    """Returns the layers of a student all of whose layers have the same bits."""
    settings = config.quantizer
    kernels = Grid(settings.weight_bits, symmetric=settings.symmetric_weights)
    # Kernels' ranges are their smallest and largest value: nothing is outside.
    return QuantLayers(
        kernels=Quantizer(kernels, "identity"),
        activations=Quantizer(Grid(settings.activation_bits), settings.gradient),
        others=(
            Quantizer(Grid(settings.other_bits), settings.gradient)
            if settings.other_bits
            else None
        ),
    )


def quant_layers(config: ConfigDict, teacher: Classifier) -> QuantLayers:
    """Returns the layers of a teacher's student.

    Raises:
      UserError: a layer that has bits of its own is none of the teacher's.
    """
    bits = _layer_bits(config, teacher)
    return dataclasses.replace(uniform_layers(config), bits=bits)


def _layer_bits(config: ConfigDict, teacher: Classifier) -> LayerBits:
    settings = config.quantizer
    asked = parse_layers(settings.layers)
    if not asked and not settings.first_last_bits:
        return ()
    return choose_bits(
        asked,
        settings.first_last_bits,
        _called_layers(teacher),
        others=settings.other_bits > 0,
    )


def bits_by_layer(config: ConfigDict, teacher: Classifier) -> dict[str, dict[str, int]]:
    """Returns {'weights', 'activations', 'others': {name: bits}} of all layers.

    As results and manifests hold them.
    """
    settings = config.quantizer
    return all_bits(
        _called_layers(teacher),
        _layer_bits(config, teacher),
        weights=settings.weight_bits,
        activations=settings.activation_bits,
        others=settings.other_bits or None,
    )


def _called_layers(teacher: Classifier) -> tuple[Layer, ...]:
    network = teacher.with_layers(FloatLayers())
    return called_layers(network, teacher.record.image_shape(1))


def range_layers(
    config: ConfigDict, teacher: Classifier, method: RangeMethod
) -> RangeLayers:
    """Returns the layers that measure the ranges of a teacher's student."""
    layers = quant_layers(config, teacher)
    return RangeLayers(
        activations=layers.activations.grid,
        others=layers.others.grid if layers.others else None,
        method=method,
        bits=layers.bits,
    )


def student_parts(config: ConfigDict, teacher: Classifier) -> StudentParts:
    """Returns what a student step is made of."""
    settings, ranges = config.student, config.quantizer
    observed = ranges.range_source == "observed"
    layers = dataclasses.replace(quant_layers(config, teacher), axis_name=AXIS)
    by_class = settings.kl_mean == "samples_and_classes"
    kl_share = 1 / teacher.record.classes if by_class else 1
    return StudentParts(
        student=teacher.with_layers(layers),
        loss=StudentLoss(
            class_weight=settings.class_weight,
            kl_weight=settings.kl_weight * kl_share,
            temperature=settings.temperature,
            hint_weight=settings.hint_weight,
        ),
        optimizer=_optimizer(
            settings.optimizer,
            settings.schedule,
            settings.learning_rate,
            to_steps(config, "train.duration"),
            decay_at=_decay_steps(config, start=_warmup_steps(config)),
            weight_decay=settings.weight_decay,
        ),
        waits=waiting_steps(config),
        ranges=RangeRule(
            observe_steps=to_steps(config, "quantizer.observe") if observed else 0,
            decay=ranges.decay,
        ),
    )


@functools.cache
def _optimizer(
    name: str,
    schedule: str,
    rate: float,
    total: int,
    *,
    decay_at: tuple[int, ...],
    first_moment: float = 0.9,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam or Nesterov's SGD, weight decay added to the gradient as in PyTorch.

    A 'step' schedule falls to a tenth at each of `decay_at`, steps of this optimiser;
    those that are not above 0 came before its first. The decay is of the student's
    `params` only: its ranges are no weights, and those that are frozen are to stay.
    """
    boundaries = []
    if schedule == "step":
        rate *= 0.1 ** sum(step <= 0 for step in decay_at)
        boundaries = [step for step in decay_at if 0 < step < total]
        if not boundaries:
            schedule = "constant"  # the run ends before
    rates = create_schedule(
        schedule, peak=rate, total_steps=total, boundaries=boundaries
    )
    steps = (
        optax.adam(rates, b1=first_moment, b2=0.999)
        if name == "adam"
        else optax.sgd(rates, momentum=0.9, nesterov=True)
    )
    if not weight_decay:
        return steps
    decay = optax.add_decayed_weights(
        weight_decay, mask={"params": True, "ranges": False}
    )
    return optax.chain(decay, steps)
