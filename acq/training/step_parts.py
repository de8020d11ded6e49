"""What steps of generator and student are made of, and what they change.

Losses and samplings are static, with the config's numbers; states are pytrees.
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
      class_weight: of the teacher's cross-entropy with the label asked for.
      statistics_weight: of BNS.
      statistics_form: see `losses.statistics_loss`.
      statistics_mode: of the teacher's pass whose statistics BNS compares.
      center_weight: of the attention center matching loss.
      center_ramp: steps over which that weight grows from 0; 0 for none.
      power: that sharpens attention before its centre is taken.
      pair_weight: of the adversarial loss of pairs.
      consistency_weight: of the attention's consistency between modes.
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
      class_weight: of the cross-entropy with the label the sample was made for.
      kl_weight: of the distillation loss, per sample.
      temperature: of it.
      hint_weight: of the distance between activations, a mean over layers.
    """

    class_weight: float | int = 0.0
    kl_weight: float | int = 1.0
    temperature: float | int = 1.0
    hint_weight: float | int = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How conditions are drawn.

    Attributes:
      latent: length of a latent.
      classes: labels are uniform over.
      reach: centres are uniform over [-reach, reach]^2.
      paired: whether neighbours share class and centre.
      shift: most pixels that the teacher sees an image moved by, each way.
      seed: of all draws.
    """

    latent: int
    classes: int
    reach: float | int
    paired: bool
    shift: int = 0
    seed: int

    def draw(self, numbers: jax.Array) -> Conditions:
        """The conditions of the samples with these numbers, uint32."""
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
    """What a generator step changes.

    Attributes:
      step: steps done, int32 scalar.
      generator: its parameters and their optimiser's state.
    """

    step: PyTree
    generator: Learner


class QuantizeState(flax.struct.PyTreeNode):
    """What a step of generator and student changes.

    Attributes:
      step: steps done of this phase, int32 scalar; of the run in one loop.
      generator: its parameters and their optimiser's state.
      student: `params` and, in `ranges`, those of the activations.
    """

    step: PyTree
    generator: Learner
    student: Learner


class GeneratorParts(NamedTuple):
    """What a generator step is made of; all hashable.

    Attributes:
      generator: makes images of conditions.
      teacher: the float network, with statistics over all devices.
      loss: weights and forms of the terms.
      sampling: draws the conditions.
      black: of an image, per channel as the teacher takes it: what shifts move in.
      optimizer: makes the steps.
    """

    generator: Generator
    teacher: nn.Module
    loss: GeneratorLoss
    sampling: Sampling
    black: tuple[float, ...]
    optimizer: optax.GradientTransformation


class StudentParts(NamedTuple):
    """What a student step is made of; all hashable.

    Attributes:
      student: the teacher's network in fake-quantized layers, with ranges observed over
        all devices.
      loss: weights of the terms.
      optimizer: makes the steps.
      ranges: where the activations' ranges come from.
      waits: steps before the student's first update; it only follows its ranges then.
    """

    student: nn.Module
    loss: StudentLoss
    optimizer: optax.GradientTransformation
    ranges: RangeRule
    waits: int = 0


def create_learner(params: PyTree, optimizer: optax.GradientTransformation) -> Learner:
    """Returns a learner before its first step; copies, since steps donate it."""
    params = jax.tree.map(jnp.copy, params)
    return Learner(params=params, opt_state=optimizer.init(params))
