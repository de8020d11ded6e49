"""A run of a recipe with one thing that may be wrong with it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

RECIPE = "configs/acq_r20_cifar10.py:smoke"
"""The cases' overrides go on top of it."""

# Writes files into a folder; returns overrides of the command line.
Build: TypeAlias = Callable[[Path], list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunCase:
    """What a person gives, and what is right.

    Attributes:
      name: Of the case.
      build: Writes its files into an existing folder; returns `--config.KEY=VALUE`
        texts. Networks of one's own need the folder in `sys.path` (on PYTHONPATH).
      outcome: right: it is quantized. refused: an error, before any step.
      says: Words that the message, or the log of what is right, must have.
      lacks: Words that neither must have.
    """

    name: str
    build: Build
    outcome: Literal["right", "refused"] = "refused"
    says: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ("Traceback",)
