import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import pipeline
from common.checkpoint import Checkpoints
from common.devices import AXIS, pmap_step
from common.errors import Interrupted, RunFailed, UserError
from common.loop import Plan, fit
from common.writers import MetricsWriter

PLAN = Plan(total=12, log=5, evaluate=6, save=4)
SOURCE = [{"x": np.float32(i)} for i in range(20)]


def _initial():
    return {"w": jnp.float32(1), "step": jnp.int32(0)}


def _step(state, shard):
    """A step whose result depends on the order of data and on its own state."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(1)))
    noise = jax.vmap(jax.random.normal)(keys(shard["draw"]))
    gradient = jax.lax.pmean(jnp.mean(shard["x"] * noise), AXIS)
    weight = 0.9 * state["w"] + 0.1 * gradient
    return {"w": weight, "step": state["step"] + 1}, {"loss": weight}


def _fit(folder, *, step=_step, plan=PLAN, batches=None, evaluate=None):
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return fit(
            _initial(),
            pmap_step(step) if step is _step else step,
            batches or pipeline.train_batches(SOURCE, seed=0, batch_size=8),
            plan,
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(folder, after_step=after),
            evaluate=evaluate,
        )


class _Signalling:
    """Batches that send a signal to this process before the n-th is given."""

    def __init__(self, number, at):
        self._batches = pipeline.train_batches(SOURCE, seed=0, batch_size=8)
        self._number, self._left = number, at
        self.get_state = self._batches.get_state
        self.set_state = self._batches.set_state

    def __iter__(self):
        return self

    def __next__(self):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)
        return next(self._batches)


@pytest.mark.slow
def test_run_writes_metrics_evaluations_and_checkpoints(tmp_path, caplog):
    seen = []

    def evaluate(state):
        seen.append(int(state["step"]))
        return {"val/x": 1.0}

    with caplog.at_level("INFO", logger="absl"):
        _fit(tmp_path, evaluate=evaluate)
    (said,) = [line for line in caplog.messages if "steps of" in line]
    assert said.startswith("train: 12 steps of ")
    lines = [
        json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [x["step"] for x in lines if "train/loss" in x] == [5, 10, 12]
    assert [x["step"] for x in lines if "val/x" in x] == seen == [6, 12]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["12", "8"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_is_bitwise_equal(tmp_path, number):
    whole = _fit(tmp_path / "whole")
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="after step 7 of 12"):
        _fit(tmp_path / "cut", batches=_Signalling(number, at=7))
    assert signal.getsignal(number) is before
    assert (tmp_path / "cut" / "checkpoints" / "7").is_dir()
    resumed = _fit(tmp_path / "cut")
    assert np.asarray(resumed["w"]).tobytes() == np.asarray(whole["w"]).tobytes()
    assert int(resumed["step"]) == 12


def test_a_finished_run_is_returned_without_a_step(tmp_path):
    whole = _fit(tmp_path)

    def no_step(state, shard):
        raise AssertionError("a finished run took a step")

    again = _fit(tmp_path, step=no_step)
    assert float(again["w"]) == float(whole["w"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_loss_names_step_and_term(tmp_path, bad):
    def step(state, shard):
        count = state["step"] + 1
        loss = jnp.where(count == 6, bad, 1.0)
        metrics = {"loss": loss, "other": jnp.float32(1)}
        return {"w": state["w"], "step": count}, metrics

    with pytest.raises(RunFailed, match=r"step 6: loss is (nan|inf)\. .*step 4"):
        _fit(tmp_path, step=pmap_step(step))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["4"]


def test_a_step_without_pmean_is_refused_before_it_is_saved(tmp_path):
    def step(state, shard):
        weight = jnp.mean(shard["x"])
        loss = jax.lax.pmean(weight, AXIS)
        return {"w": weight, "step": state["step"] + 1}, {"loss": loss}

    with pytest.raises(RuntimeError, match="pmean"):
        _fit(tmp_path, step=pmap_step(step))
    assert not list((tmp_path / "checkpoints").iterdir())


def _evaluations(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "val/x" in line]


@pytest.mark.slow
@pytest.mark.parametrize("plan", [PLAN, Plan(total=6, log=5, evaluate=6, save=4)])
def test_an_evaluation_that_fails_costs_no_step(tmp_path, plan):
    def works(state):
        return {"val/x": float(state["w"])}

    def fails(state):
        raise UserError("image 7 is damaged")

    whole = _fit(tmp_path / "whole", plan=plan, evaluate=works)
    with pytest.raises(UserError, match="image 7"):
        _fit(tmp_path / "cut", plan=plan, evaluate=fails)
    assert (tmp_path / "cut" / "checkpoints" / "6").is_dir()
    batches = _Counting()
    resumed = _fit(tmp_path / "cut", plan=plan, evaluate=works, batches=batches)
    assert batches.taken == plan.total - 6
    assert np.asarray(resumed["w"]).tobytes() == np.asarray(whole["w"]).tobytes()
    # The evaluation owed is made up for, once.
    assert _evaluations(tmp_path / "cut") == _evaluations(tmp_path / "whole")
    _fit(tmp_path / "cut", plan=plan, evaluate=fails)


class _Counting:
    """Batches that are counted."""

    def __init__(self):
        self._batches = pipeline.train_batches(SOURCE, seed=0, batch_size=8)
        self.taken = 0
        self.get_state = self._batches.get_state
        self.set_state = self._batches.set_state

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        return next(self._batches)
