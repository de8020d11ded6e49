"""A process of `test_processes.py`: a short run that prints its final state."""

import functools
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from common import devices, pipeline
from common.checkpoint import Checkpoints
from common.errors import Interrupted
from common.loop import Plan, fit
from common.writers import MetricsWriter

SOURCE = [{"x": np.float32(i)} for i in range(20)]
BATCH = 8


def step(state, shard):
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(1)))
    noise = jax.vmap(jax.random.normal)(keys(shard["draw"]))
    gradient = jax.lax.pmean(jnp.mean(shard["x"] * noise), devices.AXIS)
    weight = 0.9 * state["w"] + 0.1 * gradient
    return {"w": weight}, {"loss": weight}


class _Killed:
    """Batches that send SIGTERM to this process before the n-th is given."""

    def __init__(self, batches, at):
        self._batches, self._left = batches, at
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __iter__(self):
        return self

    def __next__(self):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return next(self._batches)


def main(coordinator, processes, process, folder, kill_at):
    devices.start_processes(coordinator, int(processes), int(process))
    share = devices.per_process(BATCH, "train.batch_size")
    batches = pipeline.train_batches(SOURCE, seed=0, batch_size=share)
    if int(kill_at):
        batches = _Killed(batches, int(kill_at))
    with Checkpoints(Path(folder, "checkpoints")) as checkpoints:
        try:
            state = fit(
                {"w": jnp.float32(1)},
                devices.pmap_step(step),
                batches,
                Plan(total=30, log=5, evaluate=30, save=25),
                checkpoints=checkpoints,
                make_writer=lambda after: MetricsWriter(Path(folder), after_step=after),
            )
        except Interrupted as error:
            print("interrupted", error)
            return
    print("final", np.asarray(devices.to_host(state)["w"]).tobytes().hex())


if __name__ == "__main__":
    main(*sys.argv[1:])
