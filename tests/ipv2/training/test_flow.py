import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.training import flow
from ipv2.training.flow import (
    SAMPLERS,
    draw_times,
    integrate,
    interpolate,
    velocity_loss,
)

ORDERS = {"euler": 1, "heun": 2, "midpoint": 2}


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def as_images(time):
    return time.reshape(-1, 1, 1, 1)


def test_the_path_is_straight_and_ends_exactly():
    x0, x1 = random(3, 2, 2, 1), random(3, 2, 2, 1, seed=1)
    x = interpolate(x0, x1, jnp.asarray([0.0, 1.0, 0.25]))
    np.testing.assert_array_equal(x[0], x0[0])
    np.testing.assert_array_equal(x[1], x1[1])
    # One rounding of each product and of the sum.
    np.testing.assert_allclose(x[2], 0.75 * x0[2] + 0.25 * x1[2], rtol=0, atol=1e-6)


def test_loss_of_a_constant_velocity_matches_a_table():
    x0 = jnp.zeros((2, 1, 1, 1))
    x1 = jnp.asarray([1.0, 4.0]).reshape(2, 1, 1, 1)
    loss = velocity_loss(lambda x, t: jnp.ones_like(x), x0, x1, jnp.asarray([0.2, 0.9]))
    assert float(loss) == pytest.approx((0**2 + 3**2) / 2)


def test_loss_passes_path_and_time_to_the_network():
    x0, x1, time = random(2, 3, 3, 1), random(2, 3, 3, 1, seed=1), jnp.array([0.3, 0.6])
    # (x1 - x_t) / (1 - t) is the velocity on a straight path: no loss is left.
    loss = velocity_loss(lambda x, t: (x1 - x) / (1 - as_images(t)), x0, x1, time)
    assert float(loss) < 1e-10  # float32 rounding of values of order 1, squared


@pytest.mark.slow
def test_times_are_uniform_and_follow_from_their_own_keys():
    rngs = jax.random.split(jax.random.key(0), 4096)
    times = draw_times(rngs)
    assert 0 <= float(times.min()) and float(times.max()) < 1
    # Standard errors of mean and variance of 4096 uniform numbers: 0.0045 and 0.0012.
    assert abs(float(times.mean()) - 1 / 2) < 0.02
    assert abs(float(times.var()) - 1 / 12) < 0.005
    np.testing.assert_array_equal(draw_times(rngs[7:9]), times[7:9])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_straight_paths_are_exact_in_any_number_of_steps(sampler, steps):
    x0, x1 = random(2, 3, 3, 1), random(2, 3, 3, 1, seed=1)
    end = integrate(lambda x, t: x1 - x0, x0, sampler=sampler, steps=steps)
    np.testing.assert_allclose(end, x1, rtol=0, atol=1e-6)  # float32 sums


@pytest.mark.parametrize(("sampler", "order"), ORDERS.items())
def test_error_falls_with_the_order_of_the_sampler(sampler, order):
    # dx/dt = -2 t x, of x and of t: x(1) = x(0) / e.
    def velocity(x, t):
        return -2 * as_images(t) * x

    x0 = jnp.ones((1, 1, 1, 1))
    exact = math.exp(-1)
    errors = [
        abs(
            float(integrate(velocity, x0, sampler=sampler, steps=n)[0, 0, 0, 0]) - exact
        )
        for n in (8, 16, 32)
    ]
    observed = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    # Higher-order terms are a few percent here; orders 1 and 2 are far apart.
    np.testing.assert_allclose(observed, order, rtol=0, atol=0.3)


def test_default_is_euler_with_the_published_steps():
    # Steps of 0.02 at t = 0, 0.02, ..., 0.98.
    x = integrate(
        lambda x, t: jnp.broadcast_to(as_images(t), x.shape), jnp.zeros((1,) * 4)
    )
    np.testing.assert_allclose(x, sum(0.02 * 0.02 * k for k in range(50)), rtol=1e-5)


def test_heun_and_midpoint_use_the_times_of_their_equations():
    # One step: 1/2 (f(0) + f(1)) and f(1/2) for dx/dt = f(t) = t^3.
    def velocity(x, t):
        return jnp.broadcast_to(as_images(t) ** 3, x.shape)

    x0 = jnp.zeros((1, 1, 1, 1))
    for sampler, expected in (("euler", 0.0), ("heun", 1 / 2), ("midpoint", 1 / 8)):
        end = integrate(velocity, x0, sampler=sampler, steps=1)
        assert float(end[0, 0, 0, 0]) == pytest.approx(expected)


def test_the_network_is_traced_once_whatever_the_number_of_steps():
    calls = []

    def velocity(x, t):
        calls.append(x.shape)
        return x

    for steps in (1, 50):
        calls.clear()
        jax.make_jaxpr(lambda x, n=steps: integrate(velocity, x, steps=n))(
            jnp.zeros((1, 2, 2, 1))
        )
        assert len(calls) <= 2, steps  # scan may trace its body again to fix its types


def test_integration_is_float32_and_differentiable():
    x0 = jnp.ones((1, 2, 2, 1), jnp.bfloat16)

    def end(rate):
        return jnp.sum(integrate(lambda x, t: rate * x, x0, sampler="heun", steps=8))

    assert integrate(lambda x, t: x, x0, steps=2).dtype == jnp.float32
    # d/dr of 4 exp(r): Heun's error at step 1/8 is about h^2 / 6, 0.3 %.
    assert float(jax.grad(end)(1.0)) == pytest.approx(4 * math.e, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"sampler": "rk4"},
            r"no sampler is called 'rk4'; accepted: \['euler', 'heun'",
        ),
        ({"steps": 0}, "steps must be >= 1, got 0"),
    ],
)
def test_integrate_names_what_is_accepted(arguments, message):
    with pytest.raises(ValueError, match=message):
        integrate(lambda x, t: x, jnp.zeros((1, 2, 2, 1)), **arguments)


def test_silent_broadcasting_is_refused():
    x, time = jnp.zeros((2, 3, 3, 1)), jnp.zeros(2)
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3, 3, 1\) and \(2, 3"):
        interpolate(x, jnp.zeros((2, 3, 3)), time)
    with pytest.raises(ValueError, match=r"one number per image, \(2,\), got \(1,\)"):
        # Past the annotations, which are only executed in tests.
        flow.interpolate.__wrapped__(x, x, jnp.zeros(1))
    with pytest.raises(ValueError, match="one shape"):
        velocity_loss(lambda x, t: x[..., 0], x, x, time)
