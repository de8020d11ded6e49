"""Four virtual CPU devices, strict shapes, warnings as errors, types executed."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from jaxtyping import install_import_hook

import tests.typecheck

# Nearly all time is compilation; what is compiled runs a second at most.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook(["acq", "common", "ipv2"], f"{tests.typecheck.__name__}.check")
