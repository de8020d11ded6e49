import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels.polar import magnitude_and_phase

FLOOR = 1e-6


def test_polar_form_is_a_table():
    re = jnp.asarray([3.0, 0.0, -2.0, -2.0, 0.0])
    im = jnp.asarray([4.0, 5.0, 0.0, -0.0, 0.0])
    magnitude, phase = magnitude_and_phase(re, im, FLOOR)
    np.testing.assert_allclose(magnitude, [5, 5, 2, 2, 0], rtol=1e-6)
    # A negative zero is a zero: +pi, where atan2 says -pi.
    expected = [np.arctan2(4, 3), np.pi / 2, np.pi, np.pi, 0]
    np.testing.assert_allclose(phase, expected, rtol=1e-6)


@pytest.mark.slow
def test_gradients_are_those_of_the_equations_away_from_zero():
    rng = np.random.default_rng(0)
    re, im, a, b = jnp.asarray(rng.normal(size=(4, 50)), jnp.float32)

    def ours(re, im):
        magnitude, phase = magnitude_and_phase(re, im, FLOOR)
        return jnp.sum(a * magnitude + b * phase)

    def oracle(re, im):
        return jnp.sum(a * jnp.hypot(re, im) + b * jnp.arctan2(im, re))

    for mine, expected in zip(
        jax.grad(ours, (0, 1))(re, im), jax.grad(oracle, (0, 1))(re, im), strict=True
    ):
        # float32; 1 / m^2 reaches 100 here.
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


def test_gradients_at_and_near_zero_are_finite_and_small():
    def phase(re, im):
        return jnp.sum(magnitude_and_phase(re, im, FLOOR)[1])

    def magnitude(re, im):
        return jnp.sum(magnitude_and_phase(re, im, FLOOR)[0])

    re, im = jnp.asarray([0.0, 1e-9, 1e-30]), jnp.asarray([0.0, 0.0, 1e-30])
    d_re, d_im = jax.grad(phase, (0, 1))(re, im)
    # m / floor^2 below the floor, where the true gradient is 1 / m, 1e9.
    np.testing.assert_allclose(d_im, [0, 1e3, 1e-18], rtol=1e-4)
    np.testing.assert_allclose(d_re, [0, 0, -1e-18], rtol=1e-4)
    # Squares of 1e-30 vanish in float32: that magnitude is 0, its gradient too small.
    for leaf in jax.grad(magnitude, (0, 1))(re, im):
        assert np.all(np.isfinite(leaf)) and np.all(np.abs(leaf) <= 1)


def test_floor_must_be_above_zero():
    with pytest.raises(ValueError, match=r"floor must be above 0, got 0\.0"):
        jax.grad(lambda x: magnitude_and_phase(x, x, 0.0)[1])(1.0)
