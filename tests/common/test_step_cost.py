import jax.numpy as jnp
import pytest

from common import step_cost
from common.step_cost import StepCost, peak_memory_gb


class _Clock:
    """A clock that shows the times given, one at each look."""

    def __init__(self, *times):
        self._times = iter(times)

    def monotonic(self):
        return next(self._times)


def _lines(steps, taken, caplog):
    cost = StepCost("student", steps)
    with caplog.at_level("INFO", logger="absl"):
        for _ in range(taken):
            cost.begin()
            cost.end({"loss": jnp.ones(3)})
    return caplog.messages


def test_the_second_step_is_measured_and_said_once(caplog, monkeypatch):
    # Begin; begin and end of the second; begin of two more.
    monkeypatch.setattr(step_cost, "time", _Clock(0.0, 70.0, 76.2, 80.0, 90.0))
    monkeypatch.setattr(step_cost, "peak_memory_gb", lambda: 5.54)
    (line,) = _lines(600, 4, caplog)
    assert (
        line
        == "student: 600 steps of 6.2 s take about 1:02:00; 5.5 GB of memory "
        + ("until now")
    )


def test_a_single_step_says_nothing(caplog):
    assert not _lines(1, 1, caplog)


def test_systems_that_do_not_tell_the_memory_leave_it_out(
    caplog, monkeypatch, tmp_path
):
    monkeypatch.setattr(step_cost, "_STATUS", tmp_path / "missing")
    (line,) = _lines(3, 3, caplog)
    assert line.startswith("student: 3 steps of ") and "memory" not in line


@pytest.mark.skipif(
    not step_cost._STATUS.exists(), reason="only Linux tells a process's peak"
)
def test_memory_is_the_peak_of_this_process():
    before = peak_memory_gb()
    held = bytearray(10**8)
    held[::4096] = bytes([1]) * len(held[::4096])
    after = peak_memory_gb()
    assert before is not None and after is not None
    # Other tests may have needed more before: the peak never falls.
    assert after >= max(before, 0.1)


def test_work_that_is_not_done_yet_is_waited_for():
    class Pending:
        waited = 0

        def block_until_ready(self):
            self.waited += 1
            return self

    pending, cost = Pending(), StepCost("student", 5)
    for _ in range(4):
        cost.begin()
        cost.end(pending)
    # Later steps go on while the device works.
    assert pending.waited == 2
