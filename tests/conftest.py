"""Four virtual CPU devices, strict shapes, warnings as errors, checked types.

Tests compile as `tests/compilation.py` says, without XLA's optimizations. Users have
the optimizations on. So have the tests of `TEST_OPTIMIZED=1 pytest -m optimized`: those
of kernels, and those that are marked because their results may depend on how XLA sums.
"""

import os

import tests.own_cores  # before JAX starts its threads
from tests.compilation import compilation_environment

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
    # The short ones last: they fill the time of the worker that is done first.
    items.sort(key=lambda item: "slow" not in item.keywords)
