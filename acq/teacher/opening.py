"""Opens the teacher of a run from any source."""

import dataclasses
from pathlib import Path

from absl import logging

from acq.classifier import Classifier
from acq.teacher.digits_training import DigitsSettings, prepare_teacher
from acq.teacher.loading import load_teacher
from acq.teacher.own_network import check_network
from acq.teacher.settings import TeacherSettings, create_teacher, stated_record
from acq.teacher.untrained import untrained_variables
from common.errors import UserError


def open_teacher(
    settings: TeacherSettings,
    workdir: Path,
    *,
    digits: DigitsSettings | None = None,
    seed: int,
) -> Classifier:
    """Returns the float network to quantize.

    Args:
      settings: of the teacher.
      workdir: of the run; the digits' teacher is trained unless its folder `teacher`
        holds it.
      digits: settings of that training; needed only for the source 'digits'.
      seed: of that training, or of an untrained network.

    Raises:
      UserError: there are no such weights, or they are of another network.
    """
    match settings.source:
        case "digits":
            if digits is None:
                raise UserError(
                    "config.digits: needed with config.teacher.source='digits', as in "
                    "configs/acq_digits.py"
                )
            return prepare_teacher(digits, workdir, seed=seed)
        case "random":
            return _untrained(settings, seed)
        case _:
            return load_teacher(settings)


def _untrained(settings: TeacherSettings, seed: int) -> Classifier:
    logging.warning(
        "config.teacher.source is 'random': an untrained network, for trying the recipe"
    )
    record = dataclasses.replace(stated_record(settings), source="random")
    network = create_teacher(record)
    check_network(network, record.image_shape(1), record.classes, name=record.name)
    variables = untrained_variables(network, record, seed)
    return Classifier(network=network, variables=variables, record=record)
