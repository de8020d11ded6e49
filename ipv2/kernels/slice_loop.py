"""Runs one compiled function on one slice after another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def slice_by_slice(
    function: Callable[..., Array], arrays: tuple[Any, ...], constants: Any
) -> Array:
    """Returns the (b, ...) stack of function(constants, *slices).

    A result does not depend on its batch, to the bit: every slice runs through the same
    machine code, alone or in a batch. Memory does not grow with the batch, and a
    slice's arrays stay in cache (on CPU this takes half the time of all slices at
    once). There is no reverse mode: use it under `jax.custom_vjp`, or where nothing is
    differentiated.

    Args:
      function: takes constants and one slice of each array, returns one array.
      arrays: b >= 1 slices along the first axis of each.
      constants: a pytree that every slice reads, such as tables.

    Returns:
      The stacked results.
    """
    size = arrays[0].shape[0]
    if size == 1:
        # XLA would drop an axis of length 1 and fuse the body.
        arrays = tuple(jnp.concatenate([array, array]) for array in arrays)
    shape = jax.eval_shape(function, constants, *(array[0] for array in arrays))

    def body(index: Array, stacked: Array) -> Array:
        one = tuple(
            jax.lax.dynamic_index_in_dim(array, index, keepdims=False)
            for array in arrays
        )
        # Without the barrier XLA computes values that depend only on constants (16
        # weights per sample of the projector) before the loop and reads them back from
        # memory, which is slower by half.
        held, one = jax.lax.optimization_barrier((constants, one))
        result = function(held, *one)
        return jax.lax.dynamic_update_index_in_dim(stacked, result, index, 0)

    # The barrier hides the count: XLA would unroll a loop of one and fuse it.
    count = jax.lax.optimization_barrier(jnp.int32(size))
    stacked = jnp.zeros((max(size, 2), *shape.shape), shape.dtype)
    return jax.lax.fori_loop(0, count, body, stacked)[:size]
