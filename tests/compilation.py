"""How JAX compiles in tests and in the tables of difficult cases.

Nearly all of their time is compilation. XLA therefore compiles quickly to slow code,
and a cache on disk keeps everything that it compiles, for other processes and later
runs. `TEST_OPTIMIZED=1` in the environment leaves XLA's optimizations on.
"""

import os
from pathlib import Path

OPTIMIZED = os.environ.get("TEST_OPTIMIZED") == "1"


def compilation_environment(*, devices: int = 1) -> dict[str, str]:
    """Returns environment variables that jax reads when a process imports it.

    Args:
      devices: virtual CPU devices of that process.
    """
    flags = f"--xla_force_host_platform_device_count={devices}"
    cache = str(Path(__file__).parents[1] / ".jax_cache")
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", cache),
        # By default JAX keeps large functions alone; most here are small.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # The lines of code that operations come from, for tools that no test uses.
        "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",
    }
    if not OPTIMIZED:
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        # XLA's older way from fusions to machine code, in one part. It compiles a
        # step of ResNet-8 in less than half the time, one of MobileNetV2 in 0.95 of
        # it. XLA refuses flags that it lacks.
        flags += " --xla_cpu_use_fusion_emitters=false"
        flags += " --xla_cpu_parallel_codegen_split_count=1"
    return {**environment, "XLA_FLAGS": flags}
