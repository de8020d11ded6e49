"""The teacher of a run, wherever `config.teacher.source` says it comes from."""

import dataclasses
from pathlib import Path

from absl import logging

from acq.classifier import Classifier
from acq.teacher.loading import load_teacher
from acq.teacher.own_network import check_network
from acq.teacher.settings import config_record, create_teacher
from acq.teacher.training import prepare_teacher
from acq.teacher.untrained import untrained_variables
from common.config import ConfigDict

SOURCES = ("weights", "digits", "random")


def open_teacher(config: ConfigDict, workdir: Path) -> Classifier:
    """Returns the float network to quantize.

    Args:
      config: checked. `weights`: a file, an export or the hub. `digits`: the embedded
        default, trained where `workdir/teacher` does not hold it. `random`: untrained,
        which tries a recipe without any weights and gives nothing of use.
      workdir: of the run.

    Raises:
      UserError: there are no such weights, or they are of another network.
    """
    match config.teacher.source:
        case "digits":
            return prepare_teacher(config, workdir)
        case "random":
            return _untrained(config)
        case _:
            return load_teacher(config)


def _untrained(config: ConfigDict) -> Classifier:
    logging.warning(
        "config.teacher.source is 'random': an untrained network, for trying the recipe"
    )
    record = dataclasses.replace(config_record(config), source="random")
    network = create_teacher(record)
    check_network(network, record.image_shape(1), record.classes, name=record.name)
    variables = untrained_variables(network, record, config.seed)
    return Classifier(network=network, variables=variables, record=record)
