"""Four virtual CPU devices, strict shapes, warnings as errors, types executed.

Nearly all time is compilation, so XLA's optimizations are off, in processes that tests
start too, and what it has compiled is kept in `.jax_cache` for these and for the next
run, which is three times as fast. Users have the optimizations on. So have the tests of
`TEST_OPTIMIZED=1 pytest -m optimized`: those of kernels, and others that are marked
since their results may depend on how XLA sums.
"""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache")
)
if os.environ.get("TEST_OPTIMIZED") != "1":
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# Everything, however small: most is.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
from jaxtyping import install_import_hook

import tests.typecheck

jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook(["acq", "common", "ipv2"], f"{tests.typecheck.__name__}.check")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "kernels" and "slow" not in item.keywords:
            item.add_marker("optimized")
