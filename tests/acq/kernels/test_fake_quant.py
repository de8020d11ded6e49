import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import stop_gradient

from acq.kernels import fake_quant as kernel
from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import Grid, dequantize, quantize, scale_and_zero_point

GRIDS = [Grid(2), Grid(4), Grid(8), Grid(2, symmetric=True), Grid(5, symmetric=True)]
KINDS = ["identity", "clipped", "learned"]


def rounded(x):
    """Rounds, with the gradient of the identity."""
    return x + stop_gradient(jnp.round(x) - x)


def oracle(x, low, high, *, grid, gradient):
    """Built of operations whose gradients JAX knows; x and ranges of one rank."""
    if gradient != "learned":
        low, high = stop_gradient(low), stop_gradient(high)
    low, high = jnp.where(low > 0, 0, low), jnp.where(high < 0, 0, high)
    if grid.symmetric:
        scale = jnp.maximum(-low, high) / grid.qmax
        zero_point = jnp.zeros_like(scale)
    else:
        scale = (high - low) / grid.qmax
        zero_point = rounded(-low / scale)
    steps = rounded(x / scale) + zero_point
    # Not clip: at the ends it would pass half of the gradient.
    codes = jnp.where(steps > grid.qmax, grid.qmax, steps)
    codes = jnp.where(steps < grid.qmin, grid.qmin, codes)
    y = (codes - zero_point) * scale
    return x + stop_gradient(y - x) if gradient == "identity" else y


def value_and_gradients(function, x, low, high, g, *, grid, gradient):
    quantizer = functools.partial(function, grid=grid, gradient=gradient)
    y, transpose = jax.vjp(quantizer, x, low, high)
    return y, *transpose(g)


@functools.partial(jax.jit, static_argnames=("grid", "gradient"))
def found(x, low, high, g, *, grid, gradient):
    return value_and_gradients(
        fake_quant, x, low, high, g, grid=grid, gradient=gradient
    )


@functools.partial(jax.jit, static_argnums=(4,))
def found_and_expected(x, low, high, g, grid):
    """By gradient: the kernel's results and the oracle's."""
    return {
        gradient: [
            value_and_gradients(f, x, low, high, g, grid=grid, gradient=gradient)
            for f in (fake_quant, oracle)
        ]
        for gradient in KINDS
    }


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def ranges(*shape):
    if not shape:
        return jnp.float32(-0.93), jnp.float32(1.41)
    return -jnp.abs(random(*shape, seed=2)) - 0.2, jnp.abs(random(*shape, seed=3)) + 0.2


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("shape", [(), (1, 1, 1, 5)], ids=["tensor", "channel"])
def test_gradients_match_the_stop_gradient_oracle(shape, grid):
    x, g, (low, high) = random(3, 5, 3, 5), random(3, 5, 3, 5, seed=1), ranges(*shape)
    scale, zero_point = scale_and_zero_point(low, high, grid)
    values = dequantize(quantize(x, scale, zero_point, grid), scale, zero_point)
    for gradient, (ours, theirs) in found_and_expected(x, low, high, g, grid).items():
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        y, dx, _, dhigh = ours
        np.testing.assert_array_equal(y, values)
        if gradient == "identity":
            np.testing.assert_array_equal(dx, g)
        else:
            assert 0 < np.mean(np.asarray(dx) == 0) < 1
        assert np.any(dhigh != 0) == (gradient == "learned")


def test_inside_reaches_half_a_step_beyond_the_ends():
    # Steps of 1, codes x + 2 in 0 ... 3; 1.5 goes to 2 = even, that is to code 4.
    x = jnp.asarray(
        [-2.6, -2.5, -2.4, -2, 0.5, 1, 1.4, 1.5, jnp.inf, -jnp.inf, jnp.nan]
    )
    low, high, g = jnp.float32(-2), jnp.float32(1), jnp.arange(1.0, 12)
    inside = np.asarray([0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    _, dx, *_ = found(x, low, high, g, grid=Grid(2), gradient="clipped")
    np.testing.assert_array_equal(dx, inside * np.asarray(g))


@pytest.mark.parametrize(
    "x, dlow, dhigh",
    [
        (9.0, 0, 1),  # Above: the upper end's.
        (-9.0, 1, 0),  # Below: the lower end's.
        (0.25, 0.25 / 3, -0.25 / 3),  # Rounded down by 0.25 of 3 steps.
        (0.75, -0.25 / 3, 0.25 / 3),  # Rounded up.
        (1.0, 0, 0),
    ],
)
def test_learned_gradients_of_one_value(x, dlow, dhigh):
    x, low, high = jnp.asarray([x]), jnp.float32(-1), jnp.float32(2)
    _, _, *gradients = found(
        x, low, high, jnp.ones(1), grid=Grid(2), gradient="learned"
    )
    np.testing.assert_allclose(gradients, [dlow, dhigh], atol=1e-6)


@pytest.mark.parametrize("grid", [Grid(3), Grid(3, symmetric=True)], ids=str)
def test_ends_that_do_not_count_get_no_gradient(grid):
    x, g = random(55, 6), random(55, 6, seed=1)
    low = jnp.asarray([0.5, 0.0, -1.0, 0.0, -2.0, -1.0])
    high = jnp.asarray([1.5, 1.0, -0.5, 0.0, 1.0, 1.0])
    y, dx, dlow, dhigh = found(x, low, high, g, grid=grid, gradient="learned")
    assert all(np.all(np.isfinite(a)) for a in (y, dx, dlow, dhigh))
    if grid.symmetric:  # The larger end's; both where they are equal.
        assert list(dlow != 0) == [False, False, True, False, True, True]
        assert list(dhigh != 0) == [True, True, False, False, False, True]
        np.testing.assert_allclose(dlow[5], -dhigh[5], rtol=1e-6)
    else:
        assert list(dlow != 0) == [False, True, True, False, True, True]
        assert list(dhigh != 0) == [True, True, False, False, True, True]


@pytest.mark.parametrize("channels", [1, 3])
def test_sums_of_both_platforms_agree(channels, monkeypatch):
    monkeypatch.setattr(kernel, "_MANY", 0)
    scale, zero_point = scale_and_zero_point(*ranges(channels), Grid(3))
    if channels == 1:
        scale, zero_point = scale[0], zero_point[0]

    @jax.jit
    def sums(scale, zero_point):
        return [
            [
                function(x, g, scale, zero_point, Grid(3))
                for function in (kernel.plain_sums, kernel.folded_sums)
            ]
            for x, g in pairs
        ]

    # Numbers of values that 16, 2 and 1 rows divide, and none.
    counts = (48, 14, 7, 0)
    pairs = [(random(n, channels), random(n, channels, seed=n)) for n in counts]
    for plain, folded in sums(scale, zero_point):
        for a, b in zip(plain, folded, strict=True):
            assert a.shape == b.shape == scale.shape
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_vmap_agrees():
    x, g = random(2, 3, 5), random(2, 3, 5, seed=1)
    low, high = jnp.asarray([-1.0, -0.3]), jnp.asarray([0.7, 2.0])
    mapped = jax.jit(jax.vmap(functools.partial(found_and_expected, grid=Grid(4))))
    one = [found_and_expected(x[i], low[i], high[i], g[i], Grid(4)) for i in range(2)]
    results = mapped(x, low, high, g)
    for gradient in KINDS:
        expected = [r[gradient][0] for r in one]
        for a, *b in zip(results[gradient][0], *expected, strict=True):
            np.testing.assert_allclose(a, jnp.stack(b), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_jit_equals_eager():
    arguments = random(3, 5), *ranges(), random(3, 5, seed=1)
    options = {"grid": Grid(4), "gradient": "learned"}
    jitted = found(*arguments, **options)
    eager = value_and_gradients(fake_quant, *arguments, **options)
    np.testing.assert_array_equal(jitted[0], eager[0])
    for a, b in zip(jitted, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_computed_in_float32():
    x = random(5, 9).astype(jnp.bfloat16)
    low, high = ranges()
    y, dx, dlow, _ = found(x, low, high, x, grid=Grid(8), gradient="learned")
    assert y.dtype == dx.dtype == jnp.bfloat16 and dlow.dtype == jnp.float32
    wide = x.astype(jnp.float32)
    expected, *_ = found(wide, low, high, wide, grid=Grid(8), gradient="learned")
    np.testing.assert_array_equal(y, expected.astype(jnp.bfloat16))


def test_bad_input_is_refused():
    x, one, four = jnp.zeros((2, 3)), jnp.float32(1), jnp.ones(4)
    with pytest.raises(ValueError, match="low and high differ in shape: "):
        fake_quant(x, one, jnp.ones(3), grid=Grid(4), gradient="clipped")
    with pytest.raises(ValueError, match=r"\(3,\) or \(1, ..., 3\) for values of"):
        fake_quant(x, four, four, grid=Grid(4), gradient="learned")
    with pytest.raises(Exception, match="'lsq'"):  # By the type check, in tests.
        fake_quant(x, one, one, grid=Grid(4), gradient="lsq")
