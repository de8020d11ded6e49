"""What the steps of a run will take: time and memory, measured on its first steps."""

import time
from pathlib import Path
from typing import Any

import jax
from absl import logging
from tqdm import tqdm

# Of this process, on Linux; other systems do not have it.
_STATUS = Path("/proc/self/status")


class StepCost:
    """Logs once what the steps of a run will take.

    The first step also compiles, so the second is the one that is measured, with the
    wait for its batch. Both are waited for. Evaluations and checkpoints take more.
    """

    def __init__(self, name: str, steps: int) -> None:
        """Measures nothing yet.

        Args:
          name: of the work, for the line.
          steps: that are left; there is no line for a single one.
        """
        self._name, self._steps = name, steps
        self._done, self._start = 0, 0.0

    def begin(self) -> None:
        """Starts the clock of a step, before its batch is asked for."""
        self._start = time.monotonic()

    def end(self, result: Any) -> None:
        """Waits for the first two steps, and logs what the second one took.

        Args:
          result: arrays that the step computes.
        """
        self._done += 1
        if self._done > 2:
            return
        jax.block_until_ready(result)
        if self._done == 2:
            self._say(time.monotonic() - self._start)

    def _say(self, seconds: float) -> None:
        total = tqdm.format_interval(self._steps * seconds)
        logging.info(
            "%s: %d steps of %.3g s take about %s%s",
            self._name, self._steps, seconds, total, _memory_in_words(),
        )  # fmt: skip


def peak_memory_gb() -> float | None:
    """Returns the most memory that was used so far, in GB (10^9 bytes), or None.

    It is that of the first local device, or on CPU that of this process. None where the
    system does not say.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats is not None and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e9
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    return None


def _memory_in_words() -> str:
    peak = peak_memory_gb()
    return "" if peak is None else f"; {peak:.1f} GB of memory until now"
