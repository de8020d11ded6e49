"""A run's `results.json`: written last, so that a folder with it is a complete run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from common.files import write_atomically

_NAME = "results.json"


def finished_results(workdir: Path) -> dict[str, Any] | None:
    """Returns the results of a complete run, and says that it is; None of another."""
    path = workdir / _NAME
    if not path.exists():
        return None
    logging.info("%s is complete: %s", workdir, path)
    return json.loads(path.read_text(encoding="utf-8"))


def write_results(workdir: Path, results: Mapping[str, Any]) -> None:
    """Writes them; whatever else a run writes must be there before."""
    write_atomically(workdir / _NAME, json.dumps(results, indent=2) + "\n")
