"""All that decides the result of a quantization, but its teacher.

Defaults are those of the recipes' base. Messages name the keys of a config. Durations
are in steps.
"""

import dataclasses
import itertools
from typing import Any, Literal

from acq.kernels.fake_quant import Gradient
from acq.layers.bits import LayerBits
from acq.layers.observed import RangeMethod
from acq.samples.generator import CenterForm, LabelForm
from acq.samples.observation import AttentionForm
from acq.training.losses import StatisticsForm
from acq.training.ranges import RangeSource

Schedule = Literal["cosine", "constant", "step"]
_TERMS = ("class", "statistics", "center", "pair", "consistency")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerSettings:
    """Bits, grids and ranges of the student; `config.quantizer` in messages.

    Attributes:
      weight_bits: bits of every convolution and dense layer, 2 to 8.
      activation_bits: bits of every rectifier's output.
      other_bits: bits of the input, branches and the classifier's input; 0: float.
      first_last_bits: bits of the first convolution, of the last dense layer, and of
        the quantized activation just before each; 0: as all others.
      layers: (name or pattern, bits) of single layers; of several that match, the last
        counts.
      budget_mb: MB (10^6 bytes) that the packed weights may have; the bits of all
        weights without bits of their own are chosen for it, and `weight_bits` is not
        used; 0: no budget.
      symmetric_weights: whether the weights' grids are symmetric around 0.
      gradient: gradient of the activations' rounding.
      range_source: source of the activations' ranges: BatchNorm parameters or samples.
      range_method: how ranges of statistics or images are chosen.
      observe_steps: steps after which observed ranges are frozen.
      decay: decay of the moving average of observed ranges.
    """

    weight_bits: int = 4
    activation_bits: int = 4
    other_bits: int = 0
    first_last_bits: int = 0
    layers: LayerBits = ()
    budget_mb: float | int = 0.0
    symmetric_weights: bool = False
    gradient: Gradient = "learned"
    range_source: RangeSource = "bn_statistics"
    range_method: RangeMethod = "mse"
    observe_steps: int = 800
    decay: float | int = 0.9

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as the manifest of an export holds them."""
        return {**dataclasses.asdict(self), "layers": dict(self.layers)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """The generator of samples and its loss; `config.generator` in messages.

    Attributes:
      width: channels of its first stage.
      latent: length of its latent.
      epsilon: epsilon of the hidden normalisations.
      output: `pixels`: images that the teacher's normalisation allows; `tanh`: as
        published.
      label: how a label and a latent are joined.
      class_spread: spread of the first scales by class.
      center: how the generator sees the wanted centre of attention.
      sigma: width of the heat map, in half image sides.
      height: height of the heat map.
      reach: centres are uniform in [-reach, reach]^2.
      shift: the largest shift, in pixels, of the samples that the teacher sees; as that
        of its training images: 4 for CIFAR's usual padded crops.
      power: exponent that sharpens attention before its centre is taken.
      attention: form of the attention map.
      class_weight: weight of the teacher's cross-entropy with the sample's label.
      statistics_weight: weight of the distance from BatchNorm's statistics.
      statistics_form: form of that distance.
      statistics_mode: mode of the teacher's pass whose statistics are compared.
      center_weight: weight of the attention centre matching loss.
      center_ramp: steps over which that weight grows from 0; 0: none.
      pair_weight: weight of the adversarial loss of pairs.
      consistency_weight: weight of the attention's consistency between modes.
      learning_rate: the highest rate.
      schedule: schedule of the steps alone, and of one loop.
      learns: whether the generator goes on learning beside the student.
      is_given: whether the generator is another run's and had its steps alone there.
    """

    width: int = 64
    latent: int = 100
    epsilon: float | int = 1e-5
    output: Literal["pixels", "tanh"] = "pixels"
    label: LabelForm = "norm"
    class_spread: float | int = 0.1
    center: CenterForm = "window"
    sigma: float | int = 0.3
    height: float | int = 3.0
    reach: float | int = 0.25
    shift: int = 0
    power: float | int = 2.0
    attention: AttentionForm = "energy"
    class_weight: float | int = 0.02
    statistics_weight: float | int = 5.0
    statistics_form: StatisticsForm = "relative"
    statistics_mode: Literal["eval", "train"] = "eval"
    center_weight: float | int = 1.5
    center_ramp: int = 0
    pair_weight: float | int = 0.05
    consistency_weight: float | int = 1.0
    learning_rate: float | int = 0.02
    schedule: Schedule = "cosine"
    learns: bool = False
    is_given: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """The student's loss and optimiser; `config.student` in messages.

    Attributes:
      optimizer: Adam, or SGD with Nesterov's momentum.
      learning_rate: the highest rate.
      schedule: schedule of the rate.
      weight_decay: decay of the weights, added to the gradient.
      class_weight: weight of the cross-entropy with the sample's label.
      kl_weight: weight of the divergence from the teacher.
      kl_mean: mean over samples, or, as published, over samples and classes.
      temperature: temperature of that divergence.
      hint_weight: weight of the distance between activations.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float | int = 3e-4
    schedule: Schedule = "cosine"
    weight_decay: float | int = 0.0
    class_weight: float | int = 0.0
    kl_weight: float | int = 1.0
    kl_mean: Literal["samples", "samples_and_classes"] = "samples"
    temperature: float | int = 1.0
    hint_weight: float | int = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How long generator and student learn; `config.train` in messages.

    Attributes:
      generator_steps: steps in which the generator learns and the student does not
        (`config.generator.warmup`).
      steps: steps of the student, after those (`config.train.duration`).
      one_loop: whether both learn in one loop, as published, with one optimiser of the
        generator; else the generator's steps are a separate phase.
      decay_at: steps from the run's start at which rates of schedule `step` fall to a
        tenth.
      batch_size: samples per step over all devices, even.
      looked_at: samples that are diagnosed.
      log: steps between two lines of metrics.
      evaluate: steps between two evaluations.
      save: steps between two checkpoints.
    """

    generator_steps: int = 800
    steps: int = 600
    one_loop: bool = False
    decay_at: tuple[int, ...] = (20_000, 40_000, 60_000)
    batch_size: int = 64
    looked_at: int = 320
    log: int = 20
    evaluate: int = 150
    save: int = 150


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizationSettings:
    """All that decides the result of a quantization of a teacher.

    Attributes:
      seed: seed of every draw.
      quantizer: bits, grids and ranges.
      generator: the generator of samples.
      student: the student that learns from them.
      train: how long both learn.
    """

    seed: int = 0
    quantizer: QuantizerSettings = QuantizerSettings()
    generator: GeneratorSettings = GeneratorSettings()
    student: StudentSettings = StudentSettings()
    train: TrainSettings = TrainSettings()

    @property
    def alone_steps(self) -> int:
        """Steps of the phase in which the generator learns alone."""
        return 0 if self.train.one_loop else self.train.generator_steps

    @property
    def warmup_steps(self) -> int:
        """Steps of this run before the student's first; 0 with a given generator."""
        return 0 if self.generator.is_given else self.train.generator_steps

    @property
    def waiting_steps(self) -> int:
        """Steps of one loop before the student's first update."""
        return self.warmup_steps if self.train.one_loop else 0

    def decay_steps(self, start: int) -> tuple[int, ...]:
        """Returns when rates fall, in steps after the run's step `start`."""
        return tuple(step - start for step in self.train.decay_at)

    def problems(self) -> list[str]:
        """Lists the values that do not fit together; each line starts with a key."""
        generator, student, train = self.generator, self.student, self.train
        found = []
        if train.batch_size % 2:
            found.append(
                f"train.batch_size: got {train.batch_size}, accepted: an even number, "
                "since samples come in pairs"
            )
        if generator.center == "none" and generator.center_weight:
            found.append(
                f"generator.center_weight: got {generator.center_weight} with "
                "generator.center='none', which shows the generator no centre: give "
                "'window', 'heat_map' or 'latent', or a weight of 0"
            )
        if train.one_loop and not generator.learns:
            found.append(
                "train.one_loop: got True with generator.learns=False: in one loop the "
                "generator learns in every step; give generator.learns=True, or False "
                "here"
            )
        if any(b <= a for a, b in itertools.pairwise(train.decay_at)):
            found.append(
                f"train.decay_at: got steps {train.decay_at}, accepted: durations that "
                "grow"
            )
        if not any(getattr(generator, f"{term}_weight") for term in _TERMS):
            names = ", ".join(f"{term}_weight" for term in _TERMS)
            found.append(
                f"generator: the weights {names} are all 0, so it has nothing to "
                "learn; give one of them a value"
            )
        if not (student.class_weight or student.kl_weight or student.hint_weight):
            found.append(
                "student.class_weight, kl_weight, hint_weight: all 0, so the student "
                "has nothing to learn; give one of them a weight"
            )
        return found
