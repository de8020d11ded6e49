import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from common.resampling import convolve_doubled, convolve_halved

NHWC = ("NHWC", "HWIO", "NHWC")
# float32 sums of 27 products of order one, in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


def halved(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (2, 2), [(0, 1)] * 2, dimension_numbers=NHWC
    )


def doubled(x, kernel):
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=NHWC
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "oracle"), [(convolve_halved, halved), (convolve_doubled, doubled)]
)
def test_values_and_gradients_are_those_of_the_plain_convolution(ours, oracle):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 6, 10, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 5)), jnp.float32)
    y, transpose = jax.vjp(ours, x, kernel)
    expected, expected_transpose = jax.vjp(oracle, x, kernel)
    np.testing.assert_allclose(y, expected, **CLOSE)
    g = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    for mine, theirs in zip(transpose(g), expected_transpose(g), strict=True):
        np.testing.assert_allclose(mine, theirs, **CLOSE)


def test_halving_refuses_odd_sides():
    with pytest.raises(ValueError, match="an even height and width, got 5x4"):
        convolve_halved(jnp.zeros((1, 5, 4, 1)), jnp.zeros((3, 3, 1, 1)))
