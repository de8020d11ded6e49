"""Parts and states of the steps of generator and student.

Losses and samplings are static and hold the config's numbers. States are pytrees.
"""

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from acq.samples.conditions import Conditions, draw_conditions
from acq.samples.generator import Generator
from acq.samples.observation import AttentionForm
from acq.training import losses
from acq.training.ranges import RangeRule
from common.typing import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorLoss:
    """Weights and forms of the generator's terms; a weight of 0 leaves a term out.

    Attributes:
      class_weight: of the teacher's cross-entropy with the requested label.
      statistics_weight: of BNS.
      statistics_form: see `losses.statistics_loss`.
      statistics_mode: mode of the teacher's pass whose statistics BNS compares.
      center_weight: of the attention center matching loss.
      center_ramp: steps over which center_weight grows from 0; 0 for none.
      power: sharpens the attention before its centre is computed.
      pair_weight: of the adversarial loss of pairs.
      consistency_weight: of the consistency of attention between modes.
      attention: form of the attention map.
    """

    class_weight: float | int = 1.0
    statistics_weight: float | int = 0.1
    statistics_form: losses.StatisticsForm = "squared"
    statistics_mode: Literal["eval", "train"] = "eval"
    center_weight: float | int = 0.0
    center_ramp: int = 0
    power: float | int = 2.0
    pair_weight: float | int = 0.0
    consistency_weight: float | int = 0.0
    attention: AttentionForm = "energy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentLoss:
    """Weights of the student's terms; a weight of 0 leaves a term out.

    Attributes:
      class_weight: of the cross-entropy with the requested label of the sample.
      kl_weight: of the distillation loss, per sample.
      temperature: of the distillation loss.
      hint_weight: of the distance between activations, a mean over layers.
    """

    class_weight: float | int = 0.0
    kl_weight: float | int = 1.0
    temperature: float | int = 1.0
    hint_weight: float | int = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Draws conditions.

    Attributes:
      latent: length of a latent.
      classes: number of classes; labels are uniform.
      reach: centres are uniform over [-reach, reach]^2.
      paired: whether neighbours share class and centre.
      shift: largest shift of an image before the teacher sees it, in pixels.
      seed: of all draws.
    """

    latent: int
    classes: int
    reach: float | int
    paired: bool
    shift: int = 0
    seed: int

    def draw(self, numbers: jax.Array) -> Conditions:
        """Returns the conditions of the samples with these numbers, uint32."""
        return draw_conditions(
            jax.random.key(self.seed),
            numbers,
            latent=self.latent,
            classes=self.classes,
            reach=self.reach,
            paired=self.paired,
            shift=self.shift,
        )


class Learner(flax.struct.PyTreeNode):
    """Parameters that an optimiser changes, and its state.

    Attributes:
      params: float32.
      opt_state: the optimiser's.
    """

    params: PyTree
    opt_state: PyTree


class GeneratorState(flax.struct.PyTreeNode):
    """State of a generator step.

    Attributes:
      step: steps done, int32 scalar.
      generator: its parameters and their optimiser's state.
    """

    step: PyTree
    generator: Learner


class QuantizeState(flax.struct.PyTreeNode):
    """State of a step of generator and student.

    Attributes:
      step: steps done in this phase, or in the run with one loop; int32 scalar.
      generator: its parameters and their optimiser's state.
      student: `params` and the activations' `ranges`, and their optimiser's state.
    """

    step: PyTree
    generator: Learner
    student: Learner


class GeneratorParts(NamedTuple):
    """Parts of a generator step; all hashable.

    Attributes:
      generator: makes images from conditions.
      teacher: the float network, with statistics over all devices.
      loss: weights and forms of the terms.
      sampling: draws the conditions.
      black: black as a network input, per channel; shifts move it in.
      optimizer: updates the parameters.
    """

    generator: Generator
    teacher: nn.Module
    loss: GeneratorLoss
    sampling: Sampling
    black: tuple[float, ...]
    optimizer: optax.GradientTransformation


class StudentParts(NamedTuple):
    """Parts of a student step; all hashable.

    Attributes:
      student: the teacher's network in fake-quantized layers, with ranges observed over
        all devices.
      loss: weights of the terms.
      optimizer: updates the parameters.
      ranges: when the ranges follow the samples.
      waits: steps before the student's first update; it only observes ranges then.
    """

    student: nn.Module
    loss: StudentLoss
    optimizer: optax.GradientTransformation
    ranges: RangeRule
    waits: int = 0


def create_learner(params: PyTree, optimizer: optax.GradientTransformation) -> Learner:
    """Returns a learner before its first step; copies, because steps donate it."""
    params = jax.tree.map(jnp.copy, params)
    return Learner(params=params, opt_state=optimizer.init(params))
