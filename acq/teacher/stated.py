"""Refuses weights whose metadata name another network or other images.

Tensors do not show everything (`acq.weights.metadata`). If metadata do not show it
either, only the evaluation on labelled images does (`config.eval`).
"""

import re
from pathlib import Path

from acq.classifier import Record
from acq.models import find_network
from acq.weights.metadata import Statement, statements
from common.errors import UserError

# Half a level of 8-bit pixels: (RGB - 127) / 128 is often stated as mean and std 0.5.
_CLOSE = 2e-3
_TIMM = "timm/"


def check_stated(path: Path, record: Record, *, hub_repo: str = "") -> None:
    """Checks that the metadata of a file of weights do not contradict the config.

    Args:
      path: Of the file.
      record: Of the network for the weights.
      hub_repo: Repository of the file; '' for a file that was given.

    Raises:
      UserError: The metadata name another network, mean or std.
    """
    found = list(statements(path))
    if hub_repo.startswith(_TIMM):
        name = hub_repo.removeprefix(_TIMM).partition(".")[0]
        found.append(
            Statement(source=f"config.teacher.hub_repo={hub_repo}", architecture=name)
        )
    for statement in found:
        _check_architecture(path, statement, record.name)
        _check_normalisation(path, statement, record)


def _check_architecture(path: Path, statement: Statement, name: str) -> None:
    architecture = statement.architecture
    network = find_network(name)
    if not architecture or network is None:
        return
    cifar_name = name.removeprefix("cifar_")
    names = (cifar_name, *network.aliases)
    is_known = any(_matches(architecture, alias) for alias in names)
    if is_known and architecture not in network.others:
        return
    raise UserError(
        f"{path}: {statement.source} says that these weights are of {architecture!r}, "
        f"but config.teacher.name is {name!r}. Networks with the same tensors may "
        "differ in pools, strides or padding, and give other logits. Give weights of "
        f"{name}, or the network itself (acq/models/README.md): "
        f"--config.teacher.name=package.module:Class. If {statement.source} is wrong, "
        "correct it."
    )


def _matches(architecture: str, name: str) -> bool:
    """Returns whether an architecture is `name`, with or without a prefix or suffix."""
    architecture = architecture.lower().replace("-", "")
    if architecture.replace("_", "") == name.replace("_", ""):
        return True
    return re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", architecture) is not None


def _check_normalisation(path: Path, statement: Statement, record: Record) -> None:
    for key in ("mean", "std"):
        stated, given = getattr(statement, key), getattr(record.normalisation, key)
        is_other = len(stated) == len(given) and any(
            abs(a - b) > _CLOSE for a, b in zip(stated, given, strict=True)
        )
        if is_other:
            text = ",".join(map(str, stated))
            raise UserError(
                f"{path}: {statement.source} says that its network takes images of "
                f"{key} {stated}, but config.teacher.{key} is {given}. Give "
                f"'--config.teacher.{key}=({text})', or correct {statement.source}."
            )
