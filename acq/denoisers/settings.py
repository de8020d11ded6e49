"""All that decides the result of a data-free quantization, but its network."""

import dataclasses

from acq.denoisers.bounds import LAST_BOUND
from acq.denoisers.steps import ImageStudentLoss
from acq.samples.generator import CenterForm
from acq.training.step_parts import GeneratorLoss

ACQ = GeneratorLoss(
    class_weight=0.0,
    statistics_weight=1.0,
    statistics_form="relative",
    center_weight=0.2,
    pair_weight=0.05,
    consistency_weight=0.2,
)
"""ACQ's terms without a class."""

STATISTICS = dataclasses.replace(
    ACQ, center_weight=0.0, pair_weight=0.0, consistency_weight=0.0
)
"""BatchNorm statistics alone, all that GDFQ's generator has beside the class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageGeneratorSettings:
    """The generator and its loss; `config.generator` in messages.

    Attributes:
      width: channels of its first features.
      latent: length of its latent.
      center: how it sees the wanted centre of attention.
      reach: centres are uniform in [-reach, reach]^2.
      learning_rate: the highest rate.
      first_bound: of the network's features at step 0, in running standard deviations;
        it grows to 10. See `bounds`.
      loss: weights and forms of its terms; no class.
    """

    width: int = 32
    latent: int = 64
    center: CenterForm = "heat_map"
    reach: float | int = 0.5
    learning_rate: float | int = 0.01
    first_bound: float | int = LAST_BOUND
    loss: GeneratorLoss = ACQ


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageStudentSettings:
    """The student's loss and rate; `config.student` in messages.

    Attributes:
      learning_rate: the highest rate of Adam.
      loss: weights of its terms.
    """

    learning_rate: float | int = 5e-4
    loss: ImageStudentLoss = dataclasses.field(default_factory=ImageStudentLoss)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageQuantizationSettings:
    """Settings of both phases.

    Attributes:
      seed: of every draw.
      image_size: side of the generator's images, pixels.
      generator: the generator.
      student: the student.
      generator_steps: steps of the generator.
      student_steps: steps of the student.
      batch_size: samples of a step over all devices, even.
      log: steps between two lines of metrics.
      save: steps between two checkpoints.
    """

    seed: int = 0
    image_size: int = 64
    generator: ImageGeneratorSettings = dataclasses.field(
        default_factory=ImageGeneratorSettings
    )
    student: ImageStudentSettings = dataclasses.field(
        default_factory=ImageStudentSettings
    )
    generator_steps: int = 300
    student_steps: int = 300
    batch_size: int = 16
    log: int = 20
    save: int = 100
