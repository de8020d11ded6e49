"""A difficult teacher: what builds its files, and what the right outcome is."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

# Writes files into a folder; returns what to add to the command of `RECIPE`.
Build: TypeAlias = Callable[[Path], list[str]]

RECIPE = "configs/acq_r20_cifar10.py"
"""Of ResNet-20 for CIFAR-10; the cases' keys go on top of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A teacher with one thing that teachers in the wild have.

    Attributes:
      name: Of the case.
      build: Writes its files; returns `--config.KEY=VALUE` texts.
      outcome: right: these weights in the network they are of. refused: an error.
      says: Words that a refusal must have.
      lacks: Words that it must not have, since they mislead.
      is_large: Whether its network is of ImageNet, and takes seconds.
    """

    name: str
    build: Build
    outcome: Literal["right", "refused"] = "refused"
    says: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ("Traceback",)
    is_large: bool = False
