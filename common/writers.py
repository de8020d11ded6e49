"""Writes a run's metrics to `metrics.jsonl` and to TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from common.devices import is_first_process
from common.files import write_atomically


class MetricsWriter:
    """Writes scalars by step; only the first process writes.

    A resumed run drops lines of steps after its checkpoint. An interrupted run may have
    written such lines.
    """

    def __init__(self, workdir: Path, *, after_step: int) -> None:
        """Opens `workdir/metrics.jsonl` and drops the lines after `after_step`."""
        self._path = workdir / "metrics.jsonl"
        self._board = None
        if not is_first_process():
            return
        kept = []
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= after_step]
        write_atomically(self._path, "".join(f"{line}\n" for line in kept))
        # Here, because it imports PyTorch for seconds if that is installed.
        from tensorboardX import SummaryWriter

        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=after_step)

    def __enter__(self) -> "MetricsWriter":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the files."""
        if self._board is not None:
            self._board.close()

    def names_at(self, step: int) -> set[str]:
        """Returns the names of a step's scalars in the file."""
        if self._board is None:
            return set()
        lines = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        return {name for line in lines if line["step"] == step for name in line}

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends a line with `step` and the scalars, named `split/name`."""
        if self._board is None:
            return
        line = {"step": step} | {name: float(v) for name, v in scalars.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in scalars.items():
            self._board.add_scalar(name, float(value), step)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:  # a killed process wrote half a line
        return float("inf")
