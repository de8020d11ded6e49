"""A quantized network as StableHLO, which any program with jax runs."""

import contextlib
from collections.abc import Generator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from acq.export import QuantizedNetwork
from common.files import replacing

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Devices on which the file runs."""


def write_stablehlo(small: QuantizedNetwork, path: Path) -> None:
    """Writes a network of integers as a file for `jax.export.deserialize`.

    It takes images (n, h, w, c), float32 in [0, 1], of any n, and returns logits (n,
    classes). The integers are constants in it.

    Args:
      small: the network.
      path: of the file, which is replaced if it exists.
    """
    (batch,) = export.symbolic_shape("batch")
    shape = (batch, *small.record.image_shape(1)[1:])

    variables = jax.tree.map(jnp.asarray, small.variables)

    @jax.jit
    def forward(images: jax.Array) -> jax.Array:
        x = small.record.normalisation.normalise(images)
        return small.network.apply(variables, x)[0]

    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with _without_source_locations():
        exported = export.export(forward, platforms=PLATFORMS)(images)
    with replacing(path) as temporary:
        temporary.write_bytes(bytes(exported.serialize()))


@contextlib.contextmanager
def _without_source_locations() -> Generator[None]:
    """Keeps paths of this machine out of the file."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
