"""The parts of the steps: generator, student, their losses and optimisers."""

import dataclasses

from acq.classifier import Classifier
from acq.layers.float import FloatLayers
from acq.quantization.optimizer import create_optimizer
from acq.quantization.settings import QuantizationSettings
from acq.quantization.student_layers import quant_layers
from acq.samples.generator import Generator
from acq.training.ranges import RangeRule
from acq.training.step_parts import (
    GeneratorLoss,
    GeneratorParts,
    Sampling,
    StudentLoss,
    StudentParts,
)
from common.devices import AXIS
from common.errors import UserError


def create_generator(settings: QuantizationSettings, teacher: Classifier) -> Generator:
    """Returns the generator of images for a teacher.

    Raises:
      UserError: the size of the teacher's images is no multiple of 4, shifts would move
        them away, or the latent is too short for their colours.
    """
    form, record = settings.generator, teacher.record
    _refuse_images(settings, teacher)
    return Generator(
        image_size=record.image_size,
        channels=record.channels,
        classes=record.classes,
        width=form.width,
        label=form.label,
        spread=form.class_spread,
        center=form.center,
        reach=form.reach,
        sigma=form.sigma,
        height=form.height,
        epsilon=form.epsilon,
        pixels=record.normalisation if form.output == "pixels" else None,
        axis_name=AXIS,
    )


def _refuse_images(settings: QuantizationSettings, teacher: Classifier) -> None:
    """Raises UserError if the generator cannot make images for the teacher."""
    form, size = settings.generator, teacher.record.image_size
    if size % 4:
        raise UserError(
            f"config.teacher.image_size: got {size}, accepted: a multiple of 4, since "
            "the generator enlarges its first features twice; give the next multiple, "
            "if the network takes it"
        )
    if form.output == "pixels" and form.latent <= teacher.record.channels:
        raise UserError(
            f"config.generator.latent: got {form.latent}, accepted with "
            f"generator.output='pixels': above {teacher.record.channels}, since colour "
            "and contrast are numbers of the latent"
        )
    if form.shift >= size:
        raise UserError(
            f"config.generator.shift: got {form.shift}, accepted: below the "
            f"images' {size} pixels, or the teacher would see black alone"
        )


def create_sampling(
    settings: QuantizationSettings, teacher: Classifier, *, alone: bool
) -> Sampling:
    """Returns how conditions are drawn.

    They are drawn in pairs if a generator learns from them. For a student alone they
    are independent, which gives twice as many classes and centres.

    Args:
      settings: the settings of the quantization.
      teacher: the classifier whose classes are drawn.
      alone: True for the generator's steps alone, False for those of the student.
    """
    form = settings.generator
    return Sampling(
        latent=form.latent,
        classes=teacher.record.classes,
        reach=form.reach,
        shift=form.shift,
        paired=form.pair_weight > 0 and (alone or form.learns),
        seed=settings.seed,
    )


def create_generator_loss(
    settings: QuantizationSettings, *, alone: bool
) -> GeneratorLoss:
    """Returns weights and forms of the generator's terms.

    Args:
      settings: the settings of the quantization.
      alone: True for the generator's steps alone, False for those of the student.
    """
    form = settings.generator
    own_schedule = alone or settings.train.one_loop
    return GeneratorLoss(
        class_weight=form.class_weight,
        statistics_weight=form.statistics_weight,
        statistics_form=form.statistics_form,
        statistics_mode=form.statistics_mode,
        center_weight=form.center_weight,
        center_ramp=form.center_ramp if own_schedule else 0,
        power=form.power,
        pair_weight=form.pair_weight,
        consistency_weight=form.consistency_weight,
        attention=form.attention,
    )


def generator_parts(
    settings: QuantizationSettings, teacher: Classifier, *, alone: bool
) -> GeneratorParts:
    """Returns the parts of a generator step.

    Args:
      settings: the settings of the quantization.
      teacher: the classifier that must recognise the images.
      alone: True for the generator's steps alone, False for those of the student.
    """
    form, train = settings.generator, settings.train
    own_schedule = alone or train.one_loop
    if alone:
        start, total = 0, train.generator_steps
    else:
        waits = settings.waiting_steps
        start = settings.warmup_steps - waits
        total = waits + train.steps
    return GeneratorParts(
        generator=create_generator(settings, teacher),
        teacher=teacher.with_layers(FloatLayers(axis_name=AXIS)),
        loss=create_generator_loss(settings, alone=alone),
        sampling=create_sampling(settings, teacher, alone=alone),
        black=teacher.record.black,
        optimizer=create_optimizer(
            "adam",
            form.schedule if own_schedule else settings.student.schedule,
            form.learning_rate,
            max(1, total),  # no steps alone need a schedule too
            decay_at=settings.decay_steps(start),
            first_moment=0.5,
        ),
    )


def student_parts(settings: QuantizationSettings, teacher: Classifier) -> StudentParts:
    """Returns the parts of a student step."""
    form, ranges = settings.student, settings.quantizer
    layers = dataclasses.replace(quant_layers(ranges, teacher), axis_name=AXIS)
    by_class = form.kl_mean == "samples_and_classes"
    kl_share = 1 / teacher.record.classes if by_class else 1
    return StudentParts(
        student=teacher.with_layers(layers),
        loss=StudentLoss(
            class_weight=form.class_weight,
            kl_weight=form.kl_weight * kl_share,
            temperature=form.temperature,
            hint_weight=form.hint_weight,
        ),
        optimizer=create_optimizer(
            form.optimizer,
            form.schedule,
            form.learning_rate,
            settings.train.steps,
            decay_at=settings.decay_steps(settings.warmup_steps),
            weight_decay=form.weight_decay,
        ),
        waits=settings.waiting_steps,
        ranges=RangeRule(
            observe_steps=(
                ranges.observe_steps if ranges.range_source == "observed" else 0
            ),
            decay=ranges.decay,
        ),
    )
