"""Quantizes a network in memory, without config and files."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import flax.linen as nn
import numpy as np

from acq.classifier import Classifier
from acq.export import QuantizedNetwork, quantize_student
from acq.kernels.fake_quant import Gradient
from acq.kernels.grid import MAX_BITS, MIN_BITS
from acq.layers.observed import RangeMethod
from acq.quantization.bit_budget import (
    choose_bits_within,
    refuse_small_budget,
    with_weight_bits,
)
from acq.quantization.parts import create_generator_loss
from acq.quantization.phases import (
    Phase,
    generator_phase,
    shared_batch_size,
    student_phase,
)
from acq.quantization.settings import (
    GeneratorSettings,
    QuantizationSettings,
    QuantizerSettings,
    StudentSettings,
    TrainSettings,
)
from acq.quantization.states import student_variables
from acq.quantization.student_layers import quant_layers
from acq.teacher.features import check_features
from acq.teacher.in_memory import given_classifier, refuse_arguments
from acq.training.ranges import RangeSource
from common.devices import refuse_divergence, replicate, shard_batch, to_host
from common.errors import RunFailed, UserError
from common.progress import Progress
from common.typing import PyTree

_GENERATOR, _STUDENT = GeneratorSettings(), StudentSettings()
# A config key in a message, with or without `config.` before it.
_KEY = re.compile(
    r"(?<![\w./])(?:--)?(?:config\.)?"
    r"(quantizer|teacher|train|generator|student)\.([a-z_]+)"
)
# Arguments that are not called as their keys.
_RENAMED = {
    "quantizer.layers": "layer_bits",
    "generator.warmup": "generator_steps",
    "train.duration": "steps",
}


def quantize(
    network: nn.Module | str,
    variables: PyTree,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    classes: int | None = None,
    image_size: int | None = None,
    weight_bits: int = 4,
    activation_bits: int = 4,
    other_bits: int = 0,
    first_last_bits: int = 0,
    layer_bits: Mapping[str, int] | None = None,
    budget_mb: float = 0.0,
    symmetric_weights: bool = False,
    gradient: Gradient = "learned",
    range_source: RangeSource = "bn_statistics",
    range_method: RangeMethod = "mse",
    observe_steps: int = 800,
    decay: float = 0.9,
    generator_steps: int = 800,
    steps: int = 600,
    batch_size: int = 64,
    seed: int = 0,
    generator: GeneratorSettings = _GENERATOR,
    student: StudentSettings = _STUDENT,
    progress: bool = False,
) -> QuantizedNetwork:
    """Returns a trained classifier as integers of few bits, made without its data.

    A generator learns to make samples from the network's own BatchNorm statistics. The
    quantized student learns from the samples to do as the network does. The same
    arguments give the same integers, and so does task quantize with the same settings.

    Args:
      network: a linen module as in `acq/models/README.md`, or the name of a network of
        `acq.models`, such as "resnet20".
      variables: the network's `params` and `batch_stats`, trained; taken as float32.
      mean: the mean that its images were normalised with, per channel, of images in
        [0, 1].
      std: the standard deviation, likewise; above 0.
      classes: the number of logits, where `network` is a name; None for that of the
        published weights.
      image_size: side of its square images in pixels; None for that of its name, which
        a module does not have.
      weight_bits: bits of every convolution and dense layer, 2 to 8.
      activation_bits: bits of every activation, 2 to 8.
      other_bits: bits of the input, branches and the classifier's input; 0 leaves them
        float.
      first_last_bits: bits of the first and the last layer; 0 for those of the others.
      layer_bits: {name or pattern: bits} of single layers; of several that match, the
        last counts.
      budget_mb: MB (10^6 bytes) that all packed weights with their scales may have. The
        bits of each layer's weights are chosen for it, from 2 to 8; layers that have
        bits of their own keep them, and `weight_bits` is not used. 0 is no budget.
      symmetric_weights: whether the weights' grids are symmetric around 0.
      gradient: gradient of the activations' rounding: 'learned' trains their ranges
        too, 'clipped' is 0 outside the range, 'identity' is 1 everywhere.
      range_source: where the activations' ranges come from: 'bn_statistics', the
        network's BatchNorm parameters, or 'observed', samples in the student's first
        steps.
      range_method: how a range of 'bn_statistics' is chosen: 'mse' has the smallest
        rounding error, 'minmax' holds all values.
      observe_steps: steps after which an 'observed' range is frozen, at least 1.
      decay: decay of the moving average of an 'observed' range, 0 to 1.
      generator_steps: steps of the generator alone.
      steps: steps of the student.
      batch_size: samples a step, a multiple of twice the devices.
      seed: seed of every draw.
      generator: the other settings of the generator; `GeneratorSettings(shift=4)` for
        CIFAR networks that were trained on padded crops.
      student: the student's loss and optimiser.
      progress: whether to show a progress line.

    Raises:
      UserError: an argument is not accepted, or the network cannot be quantized.
      RunFailed: a loss was not finite.
    """
    settings = QuantizationSettings(
        seed=seed,
        quantizer=QuantizerSettings(
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            other_bits=other_bits,
            first_last_bits=first_last_bits,
            layers=tuple((layer_bits or {}).items()),
            budget_mb=budget_mb,
            symmetric_weights=symmetric_weights,
            gradient=gradient,
            range_source=range_source,
            range_method=range_method,
            observe_steps=observe_steps,
            decay=decay,
        ),
        generator=generator,
        student=student,
        train=TrainSettings(
            generator_steps=generator_steps, steps=steps, batch_size=batch_size
        ),
    )
    with _named_as_arguments():
        refuse_arguments(_problems(settings))
        teacher = given_classifier(
            network,
            variables,
            mean=mean,
            std=std,
            classes=classes,
            image_size=image_size,
        )
        return quantize_classifier(settings, teacher, progress=progress)


@contextlib.contextmanager
def _named_as_arguments() -> Iterator[None]:
    """Puts the names of arguments in place of config keys in messages."""
    try:
        yield
    except UserError as error:
        raise UserError(_KEY.sub(_argument, str(error))) from error


def _argument(found: re.Match[str]) -> str:
    section, name = found.groups()
    key = f"{section}.{name}"
    # Keys of these two are fields of arguments that are called as the sections.
    is_field = section in ("generator", "student")
    return _RENAMED.get(key, key if is_field else name)


def quantize_classifier(
    settings: QuantizationSettings, teacher: Classifier, *, progress: bool = False
) -> QuantizedNetwork:
    """Returns a classifier as integers.

    Args:
      settings: the settings of the quantization.
      teacher: the classifier.
      progress: whether to show a progress line.

    Raises:
      UserError: the network cannot be quantized with these settings.
      RunFailed: a loss was not finite.
    """
    shared_batch_size(settings.train.batch_size)
    check_features(teacher, create_generator_loss(settings, alone=False))
    quant_layers(settings.quantizer, teacher)  # refuses layers it does not have
    if settings.quantizer.budget_mb:
        refuse_small_budget(settings.quantizer, teacher)
        chosen = choose_bits_within(settings, teacher)
        settings = with_weight_bits(settings, chosen.bits)
    on_devices = replicate(teacher.variables)
    alone = generator_phase(settings, teacher, on_devices)
    params = _last_state(alone, progress=progress).generator.params
    phase = student_phase(settings, teacher, on_devices, params)
    state = _last_state(phase, progress=progress)
    return quantize_student(settings, teacher, student_variables(teacher, state))


def _last_state(phase: Phase, *, progress: bool) -> Any:
    """The state after a phase's last step, on the host."""
    state, total, before = replicate(phase.state), phase.plan.total, None
    with contextlib.ExitStack() as stack:
        bar = None
        if progress:
            bar = stack.enter_context(Progress(phase.name, total, "steps"))
        for step in range(total):
            state, metrics = phase.p_step(state, shard_batch(next(phase.draws)))
            # One step later, so that the devices have the next one to work on.
            if before is not None:
                _refuse_infinite(phase, step, before)
            before = metrics
            if bar is not None:
                bar.update()
    if before is not None:
        _refuse_infinite(phase, total, before)
    refuse_divergence(state)
    return to_host(state)


def _refuse_infinite(phase: Phase, step: int, metrics: Mapping[str, Any]) -> None:
    values = to_host(dict(metrics))
    bad = [f"{k} is {v}" for k, v in values.items() if not np.all(np.isfinite(v))]
    if bad:
        raise RunFailed(
            f"{phase.name}, step {step} of {phase.plan.total}: {', '.join(bad)}. Lower "
            "the learning rate (GeneratorSettings, StudentSettings), or look at the "
            "network's variables, mean and std."
        )


def _problems(settings: QuantizationSettings) -> list[str]:
    """Lists the arguments that are not accepted, a line each."""
    quantizer, train = settings.quantizer, settings.train
    of_bits = range(MIN_BITS, MAX_BITS + 1)
    own_bits = {f"layer_bits[{name!r}]": bits for name, bits in quantizer.layers}
    arguments = {**vars(quantizer), **vars(train), **own_bits, "seed": settings.seed}
    accepted: dict[str, Sequence[Any]] = {
        **dict.fromkeys(("weight_bits", "activation_bits", *own_bits), of_bits),
        "other_bits": (0, *of_bits),
        "first_last_bits": (0, *of_bits),
        "symmetric_weights": (True, False),
        "gradient": get_args(Gradient),
        "range_source": get_args(RangeSource),
        "range_method": get_args(RangeMethod),
        "observe_steps": range(1, 2**31),
        "generator_steps": range(2**31),
        "steps": range(1, 2**31),
        "batch_size": range(2, 2**31),
        "seed": range(2**31),
    }
    found = [
        f"{name}: got {arguments[name]!r}, accepted: {_in_words(values)}"
        for name, values in accepted.items()
        if not _is_one_of(arguments[name], values)
    ]
    decay = quantizer.decay
    if type(decay) not in (int, float) or not 0 <= decay <= 1:
        found.append(f"decay: got {decay!r}, accepted: a number from 0 to 1")
    budget = quantizer.budget_mb
    if type(budget) not in (int, float) or not 0 <= budget < math.inf:
        found.append(f"budget_mb: got {budget!r}, accepted: a number, at least 0")
    return found or settings.problems()


def _is_one_of(value: Any, values: Sequence[Any]) -> bool:
    """Whether a value is one of several of its type: True is no 1."""
    return type(value) is type(values[0]) and value in values


def _in_words(values: Sequence[Any]) -> str:
    if isinstance(values, range):
        return f"a whole number, {values[0]} to {values[-1]}"
    return ", ".join(map(repr, values))
