"""The phases of a data-free quantization: the generator alone, then the student.

Both are run by `common.loop.fit`, and can go on from their checkpoints.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from acq.denoisers.bits import NetworkBits
from acq.denoisers.generator import ImageGenerator
from acq.denoisers.settings import ImageQuantizationSettings
from acq.denoisers.steps import (
    ImageGeneratorParts,
    ImageSampling,
    ImageStudentParts,
    ImageStudentState,
    make_image_generator_step,
    make_image_student_step,
)
from acq.quantization.optimizer import create_optimizer
from acq.quantization.phases import Phase, shared_batch_size
from acq.samples.draws import Draws
from acq.training.step_parts import GeneratorState, create_learner
from common.devices import AXIS, pmap_frozen_step, replicate
from common.errors import UserError
from common.image_network import ImageNetwork
from common.loop import Plan
from common.typing import PyTree


def image_sampling(
    settings: ImageQuantizationSettings, network: ImageNetwork, *, paired: bool
) -> ImageSampling:
    """Returns how samples are drawn."""
    form = settings.generator
    return ImageSampling(
        seed=settings.seed,
        latent=form.latent,
        reach=form.reach,
        paired=paired,
        image_size=settings.image_size,
        channels=network.channels,
    )


def create_image_generator(
    settings: ImageQuantizationSettings, network: ImageNetwork
) -> ImageGenerator:
    """Returns the generator of images for a network.

    Raises:
      UserError: the size of images does not fit the network, or the latent is too short
        for brightness, contrast, noise and background.
    """
    if settings.image_size % network.multiple:
        raise UserError(
            f"config.generator.image_size: got {settings.image_size}, accepted for "
            f"{network.name}: a multiple of {network.multiple}"
        )
    least = network.channels + 5
    if settings.generator.latent < least:
        raise UserError(
            f"config.generator.latent: got {settings.generator.latent}, accepted: at "
            f"least {least}, since brightness, contrast, noise and background are "
            "numbers of the latent"
        )
    form = settings.generator
    return ImageGenerator(
        image_size=settings.image_size,
        channels=network.channels,
        low=network.low,
        high=network.high,
        stored=network.stored,
        width=form.width,
        center=form.center,
        reach=form.reach,
        axis_name=AXIS,
    )


def image_generator_parts(
    settings: ImageQuantizationSettings, network: ImageNetwork, last: str
) -> ImageGeneratorParts:
    """Returns the parts of a generator step; arguments as `generator_phase`."""
    form, steps = settings.generator, settings.generator_steps
    return ImageGeneratorParts(
        generator=create_image_generator(settings, network),
        network=_shared(network),
        last=last,
        loss=form.loss,
        sampling=image_sampling(settings, network, paired=form.loss.pair_weight > 0),
        optimizer=create_optimizer(
            "adam",
            "cosine",
            form.learning_rate,
            max(1, steps),
            decay_at=(),
            first_moment=0.5,
        ),
        steps=max(1, steps),
        first_bound=form.first_bound,
    )


def generator_phase(
    settings: ImageQuantizationSettings, network: ImageNetwork, last: str
) -> Phase:
    """Returns the phase in which the generator learns.

    Args:
      settings: of the quantization.
      network: the float network, with batch normalisation.
      last: path of its last convolution.
    """
    steps = settings.generator_steps
    parts = image_generator_parts(settings, network, last)
    drawn = parts.sampling.draw(jnp.arange(2, dtype=jnp.uint32))
    init = jax.jit(parts.generator.clone(axis_name=None).init)
    params = init(jax.random.key(settings.seed, impl="rbg"), drawn)["params"]
    p_step = pmap_frozen_step(make_image_generator_step(parts))
    return Phase(
        name="generator",
        state=GeneratorState(
            step=jnp.int32(0), generator=create_learner(params, parts.optimizer)
        ),
        p_step=functools.partial(p_step, replicate(network.variables)),
        draws=Draws(shared_batch_size(settings.batch_size)),
        plan=_plan(settings, steps),
    )


def student_phase(
    settings: ImageQuantizationSettings,
    network: ImageNetwork,
    bits: NetworkBits,
    generator_params: PyTree,
    ranges: PyTree,
) -> Phase:
    """Returns the phase in which the student learns.

    Args:
      settings: of the quantization.
      network: the float network.
      bits: of the student's convolutions.
      generator_params: the generator's.
      ranges: the student's first ones.
    """
    parts = ImageStudentParts(
        generator=create_image_generator(settings, network),
        network=_shared(network),
        bits=bits,
        loss=settings.student.loss,
        sampling=image_sampling(settings, network, paired=False),
        optimizer=create_optimizer(
            "adam",
            "cosine",
            settings.student.learning_rate,
            max(1, settings.student_steps),
            decay_at=(),
        ),
    )
    frozen = {"network": network.variables, "generator": generator_params}
    trained = {"params": network.variables["params"], "ranges": ranges}
    p_step = pmap_frozen_step(make_image_student_step(parts))
    size = shared_batch_size(settings.batch_size)
    return Phase(
        name="student",
        state=ImageStudentState(
            step=jnp.int32(0), student=create_learner(trained, parts.optimizer)
        ),
        p_step=functools.partial(p_step, replicate(frozen)),
        # Numbers that the generator's steps did not use: new samples.
        draws=Draws(size, first=size * settings.generator_steps),
        plan=_plan(settings, settings.student_steps),
    )


def generated_images(
    settings: ImageQuantizationSettings,
    network: ImageNetwork,
    generator_params: PyTree,
    count: int,
) -> jax.Array:
    """Returns images of the generator that no step sees."""
    sampling = image_sampling(settings, network, paired=False)
    generator = create_image_generator(settings, network).clone(axis_name=None)
    numbers = jnp.arange(count, dtype=jnp.uint32) + jnp.uint32(1 << 31)
    make: Callable[..., jax.Array] = jax.jit(
        lambda params, drawn: generator.apply({"params": params}, drawn)
    )
    return make(generator_params, sampling.draw(numbers))


def _shared(network: ImageNetwork):
    """Returns the float network with statistics over all devices."""
    names = {field.name for field in dataclasses.fields(network.module)}
    if "axis_name" in names:
        return network.module.clone(axis_name=AXIS)
    return network.module


def _plan(settings: ImageQuantizationSettings, steps: int) -> Plan:
    never = steps + 1  # the results are judged once, at the end
    return Plan(total=steps, log=settings.log, evaluate=never, save=settings.save)
