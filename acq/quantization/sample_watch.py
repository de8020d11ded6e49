"""Diagnoses the generator's samples, and warns of what is wrong with them."""

from absl import logging

from acq.classifier import Classifier
from acq.diagnosis.complaints import complaints
from acq.diagnosis.diagnosis import Diagnosis
from acq.diagnosis.measuring import measure_samples
from acq.quantization.parts import generator_parts
from acq.quantization.settings import QuantizationSettings
from acq.training.step_parts import Learner
from common.typing import PyTree


def look_at_samples(
    settings: QuantizationSettings,
    teacher: Classifier,
    generator_params: PyTree,
    *,
    alone: bool,
) -> Diagnosis:
    """Returns the diagnosis of new samples, which no step has used.

    Args:
      settings: the settings of the quantization.
      teacher: the classifier that sees the samples.
      generator_params: the generator's parameters.
      alone: True for the generator's steps alone, False for those of the student.
    """
    train = settings.train
    return measure_samples(
        generator_parts(settings, teacher, alone=alone),
        generator_params,
        teacher.variables,
        first=train.batch_size * (train.generator_steps + train.steps),
        count=train.looked_at,
        batch_size=train.batch_size,
    )


def watch_samples(
    settings: QuantizationSettings,
    teacher: Classifier,
    learner: Learner,
    *,
    alone: bool,
    settled: bool = True,
) -> dict[str, float]:
    """Returns the numbers of the diagnosis; warns of what is wrong.

    Args:
      settings: the settings of the quantization.
      teacher: the classifier that sees the samples.
      learner: the generator.
      alone: True for the generator's steps alone, False for those of the student.
      settled: whether the generator learned long enough for all complaints.
    """
    diagnosis = look_at_samples(settings, teacher, learner.params, alone=alone)
    loss = generator_parts(settings, teacher, alone=alone).loss
    for text in complaints(diagnosis, loss, settled=settled):
        logging.warning("%s", text)
    return diagnosis.scalars()
