"""Shows the progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

from common.devices import is_first_process

T = TypeVar("T")


def tracked(items: Iterable[T], title: str) -> Iterator[T]:
    """Yields the items, with a line on a terminal that disappears at the end.

    It is for preparations. `Progress` is for the work that the command is for.
    """
    # disable=None: silent when stderr is not a terminal.
    yield from tqdm(items, desc=title, leave=False, disable=None)


class Progress:
    """Counts work done and shows count, rate and time left.

    The first update starts the clock, because a program compiles before it. Its units
    do not count for the rate, and the time left appears with the second update.

    On a terminal it shows a bar. Elsewhere (a log file, a batch job) it prints at most
    one line every `line_seconds`. Processes other than the first are silent.
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        line_seconds: float = 10.0,
    ) -> None:
        """Shows the bar, but prints no line yet.

        Args:
          name: of the work, for the line.
          total: number of units.
          unit: in the plural, such as "steps".
          done: units done before, which do not count for the rate.
          line_seconds: between two plain lines.
        """
        self._name, self._total, self._unit = name, total, unit
        self._first = self._done = done
        self._stream = sys.stderr
        self._start: float | None = None
        self._last_line = time.monotonic()
        self._line_seconds = line_seconds
        self._note = ""
        self._bar = None
        # Read once: at the interpreter's exit, jax would start its devices again.
        self._is_first_process = is_first_process()
        if self._stream.isatty() and self._is_first_process:
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=name,
                unit=f" {unit}",
                file=self._stream,
                dynamic_ncols=True,
            )

    def __enter__(self) -> "Progress":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shows the last state."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._print_line()

    @property
    def rate(self) -> float:
        """Units per second since the first update; 0 before the second update."""
        if self._start is None:
            return 0.0
        seconds = time.monotonic() - self._start
        return (self._done - self._first) / seconds if seconds > 0 else 0.0

    def update(self, count: int = 1, note: str | None = None) -> None:
        """Adds `count` units; `note` stays at the line's end until the next note."""
        self._done += count
        if note is not None:
            self._note = note
        is_first = self._start is None and count > 0
        if is_first:
            self._start, self._first = time.monotonic(), self._done
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)
            if is_first:
                self._restart_bar(self._bar)
            else:
                self._bar.update(count)
        elif time.monotonic() - self._last_line >= self._line_seconds:
            self._print_line()

    def _restart_bar(self, bar: tqdm) -> None:
        """Makes the bar compute its rate from the units done until now."""
        bar.initial = bar.n = bar.last_print_n = self._done
        bar.unpause()
        bar.refresh()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        if not self._is_first_process:
            return
        parts = [f"{self._name}: {self._done}/{self._total} {self._unit}"]
        if (rate := self.rate) > 0:
            left = (self._total - self._done) / rate
            parts += [f"{rate:.3g}/s", f"{tqdm.format_interval(left)} left"]
        if self._note:
            parts.append(self._note)
        print(", ".join(parts), file=self._stream, flush=True)
