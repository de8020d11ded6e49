"""The generic training loop: step, log, evaluate, save, resume, stop, abort."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging

from common.checkpoint import Checkpoints
from common.devices import (
    any_process,
    is_first_process,
    is_single_process,
    refuse_divergence,
    replicate,
    shard_batch,
    to_host,
)
from common.errors import Interrupted, RunFailed
from common.progress import Progress
from common.typing import Batch, Metrics, PyTree
from common.writers import MetricsWriter

# Between two looks at whether another process was told to stop: a look is a
# collective, and the seconds a scheduler gives after SIGTERM are many steps long.
_STEPS_BETWEEN_STOP_CHECKS = 10


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run is and when it does what, in steps.

    Attributes:
      total: steps of the whole run.
      log: between two lines of metrics.
      evaluate: between two evaluations; a step is saved before it is evaluated.
      save: between two checkpoints.
    """

    total: int
    log: int
    evaluate: int
    save: int


@runtime_checkable
class Batches(Protocol):
    """An endless iterator that can be put back to where it was."""

    def __iter__(self) -> Iterator[Batch]:
        """Returns itself."""
        ...

    def __next__(self) -> Batch:
        """Returns the next batch, arrays `b ...`."""
        ...

    def get_state(self) -> Any:
        """Returns its place, JSON-able."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes to a place."""
        ...


class StopSignal:
    """Notes SIGINT and SIGTERM instead of dying; a second one kills at once."""

    def __init__(self) -> None:
        """Does nothing until it is entered."""
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        """Takes over the two signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = signal.Signals(number).name
        logging.info("%s: saving a checkpoint; again to stop at once", self.received)


class _Window:
    """The metrics since the last line; each step's are checked one step later.

    Looking at a step's metrics waits for that step. Looking one step late leaves the
    device the next one to work on.
    """

    def __init__(self, first_step: int, kept: Callable[[], str]) -> None:
        self._next, self._kept = first_step, kept
        self._waiting: list[Metrics] = []
        self._seen: list[Mapping[str, np.ndarray]] = []

    def add(self, metrics: Metrics) -> None:
        self._waiting.append(metrics)
        while len(self._waiting) > 1:
            self._look()

    def means(self) -> dict[str, float]:
        while self._waiting:
            self._look()
        seen, self._seen = self._seen, []
        return {k: float(np.mean([m[k] for m in seen])) for k in (seen or [{}])[0]}

    def check(self) -> None:
        while self._waiting:
            self._look()

    def _look(self) -> None:
        values = to_host(self._waiting.pop(0))
        self._next += 1
        bad = [f"{k} is {v}" for k, v in values.items() if not np.all(np.isfinite(v))]
        if bad:
            raise RunFailed(
                f"step {self._next}: {', '.join(bad)}. {self._kept()} Lower the "
                "learning rate or clip the gradient, and look at the data of that step."
            )
        self._seen.append(values)


def _stop_now(stop: StopSignal, step: int) -> bool:
    """True in all processes at the same step, once one of them got a signal."""
    received = stop.received is not None
    if is_single_process():
        return received
    return step % _STEPS_BETWEEN_STOP_CHECKS == 0 and any_process(received)


def _owes_evaluation(writer: MetricsWriter, plan: Plan, step: int) -> bool:
    """Whether the step resumed after was saved, but its evaluation did not end."""
    if not step or step % plan.evaluate:
        return False
    names = writer.names_at(step) - {"step"}
    missing = all(name.startswith("train/") for name in names)
    return any_process(missing and is_first_process())


def fit(
    state: PyTree,
    p_step: Callable[[PyTree, PyTree], tuple[PyTree, Metrics]],
    batches: Batches,
    plan: Plan,
    *,
    checkpoints: Checkpoints,
    make_writer: Callable[[int], MetricsWriter],
    evaluate: Callable[[PyTree], Mapping[str, float]] | None = None,
    name: str = "train",
) -> PyTree:
    """Trains from the newest checkpoint, or from `state`, to the plan's end.

    Args:
      state: the state at step 0; also tells a checkpoint's shapes.
      p_step: pmapped `step(state, shard) -> (state, metrics)`; donates the state.
        Every metric is a scalar that must stay finite.
      batches: this process's batches; put back to its place on resumption.
      plan: the run's length and rhythm.
      checkpoints: where the run's checkpoints are.
      make_writer: from the step resumed after to a metrics writer.
      evaluate: from a state to scalars named `split/name`; at the plan's rhythm, each
        time after the step is saved. If it raised, the resumed run makes up for it.
      name: of the work, for the progress line.

    Returns:
      The final state; its checkpoint is written.

    Raises:
      RunFailed: a metric is not finite; names step and term. No checkpoint is written.
      Interrupted: SIGINT or SIGTERM came; the checkpoint is written.
    """
    step = 0
    restored = checkpoints.restore(state)
    if restored is not None:
        step, state, data_state = restored
        batches.set_state(data_state)
        logging.info("%s: resumed after step %d of %d", name, step, plan.total)

    state = replicate(state)

    def kept() -> str:
        last = checkpoints.latest_step
        where = "no checkpoint was written yet" if last is None else f"step {last}"
        return f"Last good checkpoint: {where}."

    def save() -> None:
        window.check()
        refuse_divergence(state)
        checkpoints.save(step, state, batches.get_state())

    window = _Window(step, kept)
    logged_at, logged_step = time.monotonic(), step
    with (
        StopSignal() as stop,
        make_writer(step) as writer,
        Progress(name, plan.total, "steps", done=step) as progress,
    ):
        if evaluate is not None and _owes_evaluation(writer, plan, step):
            writer.write(step, evaluate(state))
        while step < plan.total:
            state, metrics = p_step(state, shard_batch(next(batches)))
            step += 1
            window.add(metrics)
            progress.update()
            last = step == plan.total
            if last or step % plan.log == 0:
                means = window.means()
                now = time.monotonic()
                rate = (step - logged_step) / max(now - logged_at, 1e-9)
                logged_at, logged_step = now, step
                scalars = {f"train/{k}": v for k, v in means.items()}
                writer.write(step, {**scalars, "train/steps_per_second": rate})
                progress.update(0, " ".join(f"{k} {v:.4g}" for k, v in means.items()))
            evaluated = evaluate is not None and step % plan.evaluate == 0
            if last or evaluated or step % plan.save == 0:
                save()
            if evaluate is not None and evaluated:
                writer.write(step, evaluate(state))
            if _stop_now(stop, step) and not last:
                save()
                raise Interrupted(
                    f"{name}: stopped by a signal after step {step} of {plan.total}; "
                    "the checkpoint is written, the same command goes on from it"
                )
    return state
