import jax
import jax.numpy as jnp
import numpy as np

from ipv2.kernels.channel_norm import channel_norm


@jax.jit
def value_and_gradients(x, scale, bias, g):
    function = lambda *a: channel_norm(*a, 1e-3)  # noqa: E731
    y, transpose = jax.vjp(function, x, scale, bias)
    return y, transpose(g)


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_a_pixel_gets_mean_zero_and_variance_one_before_scale_and_bias():
    x = jnp.asarray([[1.0, 3.0], [-5.0, 5.0]]).reshape(1, 1, 2, 2)
    y = channel_norm(x, jnp.asarray([1.0, 2.0]), jnp.asarray([0.0, 10.0]), 1e-12)
    np.testing.assert_allclose(y[0, 0], [[-1, 12], [-1, 12]], rtol=1e-6)


def test_values_and_gradients_match_float64_and_finite_differences():
    x, scale, bias = random(1, 2, 2, 5), random(5, seed=1), random(5, seed=2)
    g = np.asarray(random(1, 2, 2, 5, seed=3), np.float64)

    def slow(x, scale, bias):
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-3) * scale + bias

    arguments = [np.asarray(a, np.float64) for a in (x, scale, bias)]
    y, gradients = value_and_gradients(x, scale, bias, jnp.asarray(g, jnp.float32))
    np.testing.assert_allclose(y, slow(*arguments), rtol=1e-5, atol=1e-5)
    for which, gradient in enumerate(gradients):
        expected = np.zeros(arguments[which].shape)
        for index in np.ndindex(expected.shape):
            shifted = [a.copy() for a in arguments]
            shifted[which][index] += 1e-5
            above = (slow(*shifted) * g).sum()
            shifted[which][index] -= 2e-5
            expected[index] = (above - (slow(*shifted) * g).sum()) / 2e-5
        # float32 against float64 differences good to 1e-9.
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_equal_channels_give_the_bias_and_a_finite_gradient():
    x = jnp.full((1, 2, 2, 3), 7.0)
    scale, bias = jnp.ones(3), jnp.asarray([1.0, 2.0, 3.0])
    y, gradients = value_and_gradients(x, scale, bias, jnp.ones_like(x))
    np.testing.assert_array_equal(y[0, 0, 0], bias)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_bfloat16_statistics_are_float32():
    # 256 + 1 is 256 in bfloat16: its mean and variance would be lost.
    x = jnp.asarray([256.0, 258.0, 260.0, 262.0], jnp.bfloat16).reshape(1, 1, 1, 4)
    one, zero = jnp.ones(4, jnp.bfloat16), jnp.zeros(4, jnp.bfloat16)
    y = channel_norm(x, one, zero, 1e-6)
    assert y.dtype == jnp.bfloat16
    expected = np.asarray([-3, -1, 1, 3]) / np.sqrt(5)
    # 8 bits of the result.
    np.testing.assert_allclose(y.astype(jnp.float32)[0, 0, 0], expected, rtol=2**-8)
