import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.scale_gradient import scale_gradient


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_value_stays_and_gradient_is_scaled(dtype):
    x, g = jnp.asarray([1.0, -2, 3], dtype), jnp.asarray([4.0, 0, -8], dtype)
    y, transpose = jax.vjp(lambda x: scale_gradient(x, 0.25), x)
    np.testing.assert_array_equal(y, x)
    (dx,) = transpose(g)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx.astype(jnp.float32), [1, 0, -2])


def test_scalars_and_batches():
    grad = jax.grad(lambda x: scale_gradient(x, 3.0) ** 2)
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(grad))(jnp.asarray([1.0, 2])), [6, 12]
    )
