"""A difficult input of the quantizer: its files and the correct outcome."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

SMOKE = "configs/acq_r20_cifar10.py:smoke"

# Writes files into a folder; returns overrides of the command line.
Build: TypeAlias = Callable[[Path], list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """An input of a user, and the correct outcome.

    Attributes:
      name: of the case.
      build: writes its files into an existing folder; returns `--config.KEY=VALUE`
        texts.
      outcome: 'right', or 'refused': an error before any step.
      expected: texts that the message, or the log of a right case, must contain.
      forbidden: texts that neither may contain, because they mislead.
      recipe: file and variants; the overrides change it.
      is_large: whether its network is for ImageNet, which takes seconds.
      bits: of the layers whose bits differ from the others.
    """

    name: str
    build: Build
    outcome: Literal["right", "refused"] = "refused"
    expected: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ("Traceback",)
    recipe: str = SMOKE
    is_large: bool = False
    bits: Mapping[str, int] = dataclasses.field(default_factory=dict)
