"""How JAX compiles in tests and in the tables of difficult cases.

Nearly all of their time is compilation. XLA's optimizations are therefore off, and a
cache on disk keeps everything that is compiled, for other processes and later runs.
"""

import os
from pathlib import Path


def quick_compilation(*, optimized: bool = False) -> dict[str, str]:
    """Returns environment variables that jax reads when it is imported.

    Args:
      optimized: leave XLA's optimizations on.
    """
    cache = str(Path(__file__).parents[1] / ".jax_cache")
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", cache),
        # By default JAX keeps large functions alone; most here are small.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **({} if optimized else {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}),
    }
