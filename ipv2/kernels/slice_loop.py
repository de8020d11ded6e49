"""One compiled body, run on one slice after another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def slice_by_slice(
    function: Callable[..., Array], arrays: tuple[Any, ...], constants: Any
) -> Array:
    """(b, ...) stack of function(constants, *slices), slices along each first axis.

    A result does not depend on the batch around it, to the bit: every slice runs
    through the same machine code, be it alone or one of many. Memory does not grow
    with the batch, and a slice's arrays stay in cache (on CPU, half the time of all
    slices at once). No reverse mode: for use under `jax.custom_vjp` or where nothing
    is differentiated.

    Args:
      function: of (constants, one slice of each array); one array out.
      arrays: b along the first axis of each, b >= 1.
      constants: a pytree that every slice reads, tables for example.

    Returns:
      The stacked results.
    """
    size = arrays[0].shape[0]
    if size == 1:
        # XLA drops axes of length 1 and would fuse the body otherwise.
        arrays = tuple(jnp.concatenate([array, array]) for array in arrays)
    shape = jax.eval_shape(function, constants, *(array[0] for array in arrays))

    def body(index: Array, stacked: Array) -> Array:
        one = tuple(
            jax.lax.dynamic_index_in_dim(array, index, keepdims=False)
            for array in arrays
        )
        # Without it XLA computes what the constants alone decide (16 weights a sample
        # of the projector) before the loop and reads that back from memory: slower by
        # half.
        held, one = jax.lax.optimization_barrier((constants, one))
        result = function(held, *one)
        return jax.lax.dynamic_update_index_in_dim(stacked, result, index, 0)

    # A count that XLA does not see: it would unroll a loop of one and fuse otherwise.
    count = jax.lax.optimization_barrier(jnp.int32(size))
    stacked = jnp.zeros((max(size, 2), *shape.shape), shape.dtype)
    return jax.lax.fori_loop(0, count, body, stacked)[:size]
