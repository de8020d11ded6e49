"""A difficult input of the quantizer: what builds it, and what is right."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

SMOKE = "configs/acq_r20_cifar10.py:smoke"

# Writes files into a folder; returns overrides of the command line.
Build: TypeAlias = Callable[[Path], list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What a person gives, and what is right.

    Attributes:
      name: of the case.
      build: writes its files into an existing folder; returns `--config.KEY=VALUE`
        texts.
      outcome: right, or refused: an error, before any step.
      says: words that the message, or the log of what is right, must have.
      lacks: words that neither must have, since they mislead.
      recipe: file and variants that the overrides go on top of.
      is_large: whether its network is of ImageNet, and takes seconds.
      bits: that layers must have where they differ from the usual.
    """

    name: str
    build: Build
    outcome: Literal["right", "refused"] = "refused"
    says: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ("Traceback",)
    recipe: str = SMOKE
    is_large: bool = False
    bits: Mapping[str, int] = dataclasses.field(default_factory=dict)
