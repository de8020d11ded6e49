"""Refuses weights that are said to be of another network, or for other images.

Tensors alone do not tell everything (`acq.weights.metadata`). What no word tells either
is left to the evaluation on labelled images, `config.eval`.
"""

import re
from pathlib import Path

from acq.classifier import Record
from acq.models import find_network
from acq.weights.metadata import Statement, statements
from common.errors import UserError

# Numbers are given to three or four digits.
_CLOSE = 1e-3
_TIMM = "timm/"


def check_stated(path: Path, record: Record, *, hub_repo: str = "") -> None:
    """Raises if what stands beside a file of weights contradicts the config.

    Args:
      path: Of the file.
      record: Of the network that it is to be loaded into.
      hub_repo: Where it was fetched from; '' for a file that was given.

    Raises:
      UserError: Another network is named there, or another mean or std.
    """
    said = list(statements(path))
    if hub_repo.startswith(_TIMM):
        name = hub_repo.removeprefix(_TIMM).partition(".")[0]
        said.append(
            Statement(place=f"config.teacher.hub_repo={hub_repo}", architecture=name)
        )
    for statement in said:
        _check_architecture(path, statement, record.name)
        _check_normalisation(path, statement, record)


def _check_architecture(path: Path, statement: Statement, name: str) -> None:
    said = statement.architecture
    network = find_network(name)
    if not said or network is None:
        return
    cifar_name = name.removeprefix("cifar_")
    if any(_is_called(said, known) for known in (cifar_name, *network.aliases)):
        return
    raise UserError(
        f"{path}: {statement.place} says that these weights are of {said!r}, but "
        f"config.teacher.name is {name!r}. Networks with the same tensors may differ "
        "in pools or strides, and give other logits. Give the weights of "
        f"{name}, or the network itself (acq/models/README.md): "
        "--config.teacher.name=package.module:Class. If what it says is wrong, correct "
        "it."
    )


def _is_called(said: str, name: str) -> bool:
    """Whether a name, or one with a prefix or suffix to it, is that of a network."""
    said = said.lower().replace("-", "")
    if said.replace("_", "") == name.replace("_", ""):
        return True
    return re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", said) is not None


def _check_normalisation(path: Path, statement: Statement, record: Record) -> None:
    for key in ("mean", "std"):
        said, given = getattr(statement, key), getattr(record.normalisation, key)
        is_other = len(said) == len(given) and any(
            abs(a - b) > _CLOSE for a, b in zip(said, given, strict=True)
        )
        if is_other:
            text = ",".join(map(str, said))
            raise UserError(
                f"{path}: {statement.place} says that its network takes images of "
                f"{key} {said}, but config.teacher.{key} is {given}. Give "
                f"'--config.teacher.{key}=({text})', or correct {statement.place}."
            )
