import jax
import jax.numpy as jnp
import pytest

from common.onnx.block_maximum import with_pools
from common.onnx.walk import BATCH, Walk, needed
from ipv2.kernels.block_maximum import block_maximum


def kinds(function):
    """Returns the kinds of steps of a function of 8 x 8 images."""
    x = jax.ShapeDtypeStruct((BATCH, 8, 8, 3), jnp.float32)
    walk = Walk()
    image = walk.number()
    (result,) = walk.through(jax.make_jaxpr(lambda x: function(x * 2))(x), [image])
    return [step.kind for step in with_pools(needed(walk.steps, result), result)]


@pytest.mark.parametrize("size", [2, 4])
def test_maxima_of_blocks_are_one_step(size):
    found = kinds(lambda x: block_maximum(x, size))
    assert found == ["mul", "reduce_window_max"]


def _two_of_four(x):
    blocks = x.reshape(BATCH, 4, 2, 4, 2, 3)
    return jnp.maximum(blocks[:, :, 0, :, 0], blocks[:, :, 1, :, 1])


def _other_axes(x):
    blocks = x.reshape(BATCH, 2, 4, 2, 4, 3)
    parts = [blocks[:, :, i, :, j] for i in (0, 1) for j in (0, 1)]
    return jnp.maximum(jnp.maximum(parts[0], parts[1]), jnp.maximum(parts[2], parts[3]))


@pytest.mark.parametrize("function", [_two_of_four, _other_axes])
def test_other_maxima_stay(function):
    found = kinds(function)
    assert "max" in found and "reduce_window_max" not in found
