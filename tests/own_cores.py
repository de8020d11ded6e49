"""Gives each worker of pytest its share of the cores, when it is imported.

Two workers whose threads collide on two cores take up to twice the processor time.
"""

import os


def share_cores() -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    share = cores[int(worker.removeprefix("gw")) :: workers]
    os.sched_setaffinity(0, share or cores)


share_cores()
