"""Four virtual CPU devices, strict shapes, warnings as errors, checked types.

Tests compile as `tests/compilation.py` says, without XLA's optimizations. Users have
the optimizations on. So have the tests of `TEST_OPTIMIZED=1 pytest -m optimized`: those
of kernels, and those that are marked because their results may depend on how XLA sums.
"""

import os

from tests.compilation import compilation_environment


def _share_cores():
    """Gives each worker its share of the cores, so that their threads do not collide.

    Two workers on two cores took up to twice the processor time before.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    share = cores[int(worker.removeprefix("gw")) :: workers]
    os.sched_setaffinity(0, share or cores)


# Before JAX starts its threads.
_share_cores()
os.environ.update(compilation_environment(devices=4))

import jax
from jaxtyping import install_import_hook

import tests.typecheck

jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook(["acq", "common", "ipv2"], f"{tests.typecheck.__name__}.check")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "kernels" and "slow" not in item.keywords:
            item.add_marker("optimized")
