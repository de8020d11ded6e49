"""A difficult case: how to build its files, and the right outcome."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from tests.cases.source import Source

# read: right HU and geometry come out. refused: left out for a reason that is said,
# the rest of the batch done. either: one of the two.
Outcome: TypeAlias = Literal["read", "refused", "either"]

# From each file of the case, relative to its folder, to the HU it holds: (rows,
# columns), or (slices, rows, columns) of a volume; NaN where nothing was measured.
Truth: TypeAlias = Mapping[str, np.ndarray]
Build: TypeAlias = Callable[[Path, Source], Truth]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A folder of files with one peculiarity of real files.

    Attributes:
      name: of the case, and of its folder.
      build: writes the files into a folder; returns the HU they hold.
      outcome: the right one.
      says: a regular expression that a refusal, or a note on what is read, must match.
      lists: files that must be named as not used.
      keys: of the config, for both `denoise` and `simulate`.
      tasks: that the case is tried on.
    """

    name: str
    build: Build
    outcome: Outcome = "read"
    says: str = ""
    lists: tuple[str, ...] = ()
    keys: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tasks: tuple[str, ...] = ("denoise",)
