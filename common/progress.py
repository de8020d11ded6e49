"""How far long work is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

from common.devices import is_first_process

T = TypeVar("T")


def tracked(items: Iterable[T], title: str) -> Iterator[T]:
    """The items, with one self-erasing line on a terminal and nothing elsewhere.

    For work that comes before what was asked for; `Progress` is for that itself.
    """
    # disable=None: silent when stderr is not a terminal.
    yield from tqdm(items, desc=title, leave=False, disable=None)


class Progress:
    """Counts work done and shows count, rate and time left.

    The first update starts the clock: until then a program compiles. What it adds does
    not count for the rate, and there is no time left before the second.

    On a terminal it is a bar that is redrawn. Elsewhere (a log file, a batch job) it
    is a line at most every `line_seconds`. Processes other than the first are silent.
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
        """Shows nothing yet, but for the bar.

        Args:
          name: of the work, for the line.
          total: units in all.
          unit: in the plural, such as "steps".
          done: units done before, which do not count for the rate.
          line_seconds: between two plain lines.
        """
        self._name, self._total, self._unit = name, total, unit
        self._first = self._done = done
        self._stream = sys.stderr
        self._start: float | None = None
        self._shown = time.monotonic()
        self._line_seconds = line_seconds
        self._note = ""
        self._bar = None
        # Asked once: at the interpreter's exit, jax would start its devices anew.
        self._shown_here = is_first_process()
        if self._stream.isatty() and self._shown_here:
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
        """Units a second since the first update; 0 before the second."""
        if self._start is None:
            return 0.0
        seconds = time.monotonic() - self._start
        return (self._done - self._first) / seconds if seconds > 0 else 0.0

    def update(self, count: int = 1, note: str | None = None) -> None:
        """Adds `count` units; `note` stays at the line's end until the next one."""
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
        elif time.monotonic() - self._shown >= self._line_seconds:
            self._print_line()

    def _restart_bar(self, bar: tqdm) -> None:
        """Makes the bar's own rate begin with what is done now."""
        bar.initial = bar.n = bar.last_print_n = self._done
        bar.unpause()
        bar.refresh()

    def _print_line(self) -> None:
        self._shown = time.monotonic()
        if not self._shown_here:
            return
        parts = [f"{self._name}: {self._done}/{self._total} {self._unit}"]
        if (rate := self.rate) > 0:
            left = (self._total - self._done) / rate
            parts += [f"{rate:.3g}/s", f"{tqdm.format_interval(left)} left"]
        if self._note:
            parts.append(self._note)
        print(", ".join(parts), file=self._stream, flush=True)
