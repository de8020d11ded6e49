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
from common.step_cost import StepCost
from common.typing import Batch, Metrics, PyTree
from common.writers import MetricsWriter

# How often processes ask each other for a signal. Asking is a collective, and the
# seconds that a scheduler gives after SIGTERM are many steps long.
_STEPS_BETWEEN_STOP_CHECKS = 10


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The length of a run and its rhythm, in steps.

    Attributes:
      total: steps of the whole run.
      log: steps between two lines of metrics.
      evaluate: steps between two evaluations; a step is saved before it is evaluated.
      save: steps between two checkpoints.
    """

    total: int
    log: int
    evaluate: int
    save: int


@runtime_checkable
class Batches(Protocol):
    """An endless iterator that can go back to an earlier place."""

    def __iter__(self) -> Iterator[Batch]:
        """Returns itself."""
        ...

    def __next__(self) -> Batch:
        """Returns the next batch, arrays `b ...`."""
        ...

    def get_state(self) -> Any:
        """Returns the iterator's place, which JSON can hold."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes to a place from `get_state`."""
        ...


class StopSignal:
    """Notes SIGINT or SIGTERM, so that a run can save; a second one kills at once."""

    def __init__(self) -> None:
        """Leaves the signals alone until the context is entered."""
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
        """Restores the handlers of before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = signal.Signals(number).name
        logging.info("%s: saving a checkpoint; again to stop at once", self.received)


class _Window:
    """The metrics since the last line of metrics.

    Each step's metrics are checked one step later. Reading them waits for the step, and
    one step later the device has the next one to work on.
    """

    def __init__(self, first_step: int, checkpoints: Checkpoints) -> None:
        self._step, self._checkpoints = first_step, checkpoints
        self._unread: list[Metrics] = []
        self._read: list[Mapping[str, np.ndarray]] = []

    def add(self, metrics: Metrics) -> None:
        self._unread.append(metrics)
        while len(self._unread) > 1:
            self._check_first()

    def check_all(self) -> None:
        while self._unread:
            self._check_first()

    def means(self) -> dict[str, float]:
        self.check_all()
        read, self._read = self._read, []
        return {k: float(np.mean([m[k] for m in read])) for k in (read or [{}])[0]}

    def _check_first(self) -> None:
        values = to_host(self._unread.pop(0))
        self._step += 1
        bad = [f"{k} is {v}" for k, v in values.items() if not np.all(np.isfinite(v))]
        if bad:
            last = self._checkpoints.latest_step
            where = "no checkpoint was written yet" if last is None else f"step {last}"
            raise RunFailed(
                f"step {self._step}: {', '.join(bad)}. Last good checkpoint: {where}. "
                "Lower the learning rate or clip the gradient, and look at the data of "
                "that step."
            )
        self._read.append(values)


class _Log:
    """Writes a line of metrics, with the rate since the line before."""

    def __init__(self, writer: MetricsWriter, progress: Progress, step: int) -> None:
        self._writer, self._progress = writer, progress
        self._step, self._time = step, time.monotonic()

    def write(self, step: int, means: Mapping[str, float]) -> None:
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        scalars = {f"train/{k}": v for k, v in means.items()}
        self._writer.write(step, {**scalars, "train/steps_per_second": rate})
        self._progress.update(0, " ".join(f"{k} {v:.4g}" for k, v in means.items()))


def _stop_now(stop: StopSignal, step: int) -> bool:
    """Whether a process got a signal; the same answer in all processes."""
    received = stop.received is not None
    if is_single_process():
        return received
    return step % _STEPS_BETWEEN_STOP_CHECKS == 0 and any_process(received)


def _owes_evaluation(writer: MetricsWriter, plan: Plan, step: int) -> bool:
    """Whether the run was stopped after it saved this step and before it evaluated."""
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

    After its second step it logs what all of them will take.

    Args:
      state: the state at step 0; a checkpoint has its shapes.
      p_step: pmapped `step(state, shard) -> (state, metrics)`; donates the state.
        Every metric is a scalar that must stay finite.
      batches: this process's batches; a resumed run goes back to their place.
      plan: the run's length and rhythm.
      checkpoints: the run's checkpoints.
      make_writer: makes a metrics writer, given the step that the run goes on from.
      evaluate: makes scalars named `split/name` of a state. Called at the plan's
        rhythm, each time after the step is saved. A resumed run makes up for an
        evaluation that did not end.
      name: the name of the work, for the progress line.

    Returns:
      The final state; its checkpoint is written.

    Raises:
      RunFailed: a metric is not finite; the message names step and metric. No
        checkpoint of that step is written.
      Interrupted: SIGINT or SIGTERM came; the checkpoint is written.
    """
    step, state = _restored(state, batches, plan, checkpoints, name)
    window = _Window(step, checkpoints)

    def save() -> None:
        window.check_all()
        refuse_divergence(state)
        checkpoints.save(step, state, batches.get_state())

    with (
        StopSignal() as stop,
        make_writer(step) as writer,
        Progress(name, plan.total, "steps", done=step) as progress,
    ):
        log, cost = _Log(writer, progress, step), StepCost(name, plan.total - step)
        if evaluate is not None and _owes_evaluation(writer, plan, step):
            writer.write(step, evaluate(state))
        while step < plan.total:
            cost.begin()
            state, metrics = p_step(state, shard_batch(next(batches)))
            step += 1
            window.add(metrics)
            cost.end(metrics)
            progress.update()
            is_last = step == plan.total
            if is_last or step % plan.log == 0:
                log.write(step, window.means())
            is_evaluated = evaluate is not None and step % plan.evaluate == 0
            if is_last or is_evaluated or step % plan.save == 0:
                save()
            if evaluate is not None and is_evaluated:
                writer.write(step, evaluate(state))
            if _stop_now(stop, step) and not is_last:
                save()
                raise Interrupted(
                    f"{name}: stopped by a signal after step {step} of {plan.total}; "
                    "the checkpoint is written, the same command goes on from it"
                )
    return state


def _restored(
    state: PyTree, batches: Batches, plan: Plan, checkpoints: Checkpoints, name: str
) -> tuple[int, PyTree]:
    """The step and the state to go on from; the batches are put there too."""
    step = 0
    if (restored := checkpoints.restore(state)) is not None:
        step, state, place = restored
        batches.set_state(place)
        logging.info("%s: resumed after step %d of %d", name, step, plan.total)
    return step, replicate(state)
