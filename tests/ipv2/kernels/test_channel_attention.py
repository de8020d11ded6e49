import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels.channel_attention import channel_attention


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@jax.jit
def value_and_gradients(query, key, value, temperature, g):
    y, transpose = jax.vjp(channel_attention, query, key, value, temperature)
    return y, transpose(g)


def slow_attention(query, key, value, temperature):
    """Head by head and image by image, from the equation, in float64."""
    y = np.zeros(query.shape)
    width = query.shape[-1] // len(temperature)
    for image in range(query.shape[0]):
        for head, scale in enumerate(np.asarray(temperature, np.float64)):
            part = (image, ..., slice(head * width, (head + 1) * width))
            q, k, v = (
                np.asarray(a, np.float64)[part].reshape(-1, width)
                for a in (query, key, value)
            )
            q, k = q / np.linalg.norm(q, axis=0), k / np.linalg.norm(k, axis=0)
            a = np.exp(scale * q.T @ k)
            a /= a.sum(1, keepdims=True)
            y[part] = (v @ a.T).reshape(y[part].shape)
    return y


@pytest.mark.parametrize(("channels", "heads"), [(6, 1), (6, 3), (4, 4)])
def test_channels_mix_within_their_head(channels, heads):
    query, key, value = (random(2, 3, 5, channels, seed=s) for s in range(3))
    temperature = 3 * random(heads, seed=4)
    # Sums of 15 products; float32 against float64.
    np.testing.assert_allclose(
        jax.jit(channel_attention)(query, key, value, temperature),
        slow_attention(query, key, value, temperature),
        rtol=1e-4,
        atol=1e-5,
    )


def test_gradient_is_that_of_the_equation():
    arguments = [random(1, 2, 3, 4, seed=s) for s in range(3)] + [random(2, seed=4)]
    g = np.asarray(random(1, 2, 3, 4, seed=5), np.float64)
    gradients = value_and_gradients(*arguments, jnp.asarray(g, jnp.float32))[1]
    arguments = [np.asarray(a, np.float64) for a in arguments]
    rng = np.random.default_rng(6)
    for which, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = list(arguments)
            moved[which] = moved[which] + sign * 1e-5 * direction
            ends.append((slow_attention(*moved) * g).sum())
        expected = (ends[0] - ends[1]) / 2e-5
        # One number of order 1 from float32 gradients.
        np.testing.assert_allclose(
            (np.asarray(gradient) * direction).sum(), expected, rtol=1e-3, atol=1e-4
        )


def test_channels_of_zeros_have_finite_values_and_gradients():
    zeros = jnp.zeros((1, 3, 3, 4))
    value = random(1, 3, 3, 4)
    y, gradients = value_and_gradients(zeros, zeros, value, jnp.ones(2), value)
    # Without a preference each channel gets its head's mean.
    expected = value.reshape(1, 3, 3, 2, 2).mean(-1).repeat(2, -1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))


@pytest.mark.slow
def test_memory_grows_with_pixels_and_not_with_their_square():
    def memory(side):
        x = jax.ShapeDtypeStruct((1, side, side, 8), jnp.float32)
        loss = lambda *a: jnp.sum(channel_attention(*a))  # noqa: E731
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(
            x, x, x, jax.ShapeDtypeStruct((2,), jnp.float32)
        )
        return compiled.compile().memory_analysis().temp_size_in_bytes

    assert memory(128) < 1.2 * 16 * memory(32)


def test_heads_must_divide_the_channels():
    x = jnp.zeros((1, 2, 2, 4))
    call = functools.partial(channel_attention, x, x, x)
    with pytest.raises(ValueError, match="4 channels do not divide into 3 heads"):
        call(jnp.ones(3))
