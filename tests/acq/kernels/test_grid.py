import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.grid import Grid, dequantize, quantize, scale_and_zero_point

GRIDS = [Grid(bits, symmetric) for bits in range(2, 9) for symmetric in (False, True)]
INF, NAN = float("inf"), float("nan")


@functools.partial(jax.jit, static_argnums=(3,))
def codes_and_values(x, low, high, grid):
    scale, zero_point = scale_and_zero_point(low, high, grid)
    codes = quantize(x, scale, zero_point, grid)
    return codes, dequantize(codes, scale, zero_point)


def both(x, low, high, grid):
    low, high = jnp.float32(low), jnp.float32(high)
    return codes_and_values(jnp.asarray(x, jnp.float32), low, high, grid)


@pytest.mark.parametrize(
    "grid, qmin, qmax",
    [
        (Grid(2), 0, 3),
        (Grid(3), 0, 7),
        (Grid(8), 0, 255),
        (Grid(2, symmetric=True), -1, 1),
        (Grid(4, symmetric=True), -7, 7),
        (Grid(8, symmetric=True), -127, 127),
    ],
    ids=str,
)
def test_integers_of_a_grid(grid, qmin, qmax):
    assert (grid.qmin, grid.qmax) == (qmin, qmax)


@pytest.mark.parametrize("bits", [1, 9, 0, -4, True])
def test_grid_refuses_other_bits(bits):
    with pytest.raises(ValueError, match=f"whole number from 2 to 8, got {bits}"):
        Grid(bits)


@pytest.mark.parametrize(
    "low, high, grid, scale, zero_point",
    [
        (-1, 2, Grid(2), 1, 1),
        (-0.5, 2.5, Grid(2), 1, 0),  # 0.5 steps below 0: half to even.
        (-1.5, 1.5, Grid(2), 1, 2),  # 1.5 steps: half to even.
        (0, 7.5, Grid(4), 0.5, 0),
        (-7.5, 0, Grid(4), 0.5, 15),
        # 0 belongs to every range.
        (3, 6, Grid(2), 2, 0),
        (-6, -3, Grid(2), 2, 3),
        # The zero point of symmetric grids is 0, the larger end decides.
        (-7, 3, Grid(4, symmetric=True), 1, 0),
        (-1, 14, Grid(4, symmetric=True), 2, 0),
        (3, 6, Grid(2, symmetric=True), 6, 0),
        # No width, none that float32 can divide by.
        (0, 0, Grid(4), 1, 0),
        (0, 0, Grid(4, symmetric=True), 1, 0),
        (-1e-38, 1e-38, Grid(8), 1, 0),
        (0, 1e-44, Grid(2), 1, 0),
    ],
)
def test_scale_and_zero_point(low, high, grid, scale, zero_point):
    found = scale_and_zero_point(jnp.float32(low), jnp.float32(high), grid)
    np.testing.assert_allclose(found, (scale, zero_point), rtol=1e-7)


def test_ties_go_to_even_and_ends_are_clipped():
    # Steps of 1, zero point 4: codes are round(x) + 4 in 0 ... 15.
    x = [-9, -4.51, -4.5, -3.5, -2.5, -0.5, 0, 0.5, 1.5, 2.5, 11, 11.49, 11.5, 12, 99]
    code = [0, 0, 0, 0, 2, 4, 4, 4, 6, 6, 15, 15, 15, 15, 15]
    found, values = both(x, -4, 11, Grid(4))
    np.testing.assert_array_equal(found, code)
    np.testing.assert_array_equal(values, np.asarray(code) - 4.0)


def test_ties_of_a_symmetric_grid():
    x = [-8, -3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 8]
    found, values = both(x, -3, 3, Grid(3, symmetric=True))
    np.testing.assert_array_equal(found, [-3, -3, -2, -2, 0, 0, 2, 2, 3, 3])
    np.testing.assert_array_equal(values, found)


@pytest.mark.parametrize("grid", [Grid(2), Grid(2, symmetric=True)], ids=str)
def test_infinities_are_clipped_and_nan_stays(grid):
    codes, values = both([-INF, INF, NAN, 3e38], -1, 2, grid)
    np.testing.assert_array_equal(codes, [grid.qmin, grid.qmax, NAN, grid.qmax])
    assert np.isnan(values[2]) and np.all(np.isfinite(np.delete(values, 2)))


@pytest.mark.parametrize("grid", [Grid(4), Grid(4, symmetric=True)], ids=str)
@pytest.mark.parametrize(
    "low, high", [(-INF, 1), (-1, INF), (-INF, INF), (NAN, 1), (-1, NAN), (NAN, NAN)]
)
def test_a_range_that_is_not_finite_shows(low, high, grid):
    assert np.all(np.isnan(both([-1, 0, 1], low, high, grid)[1]))


def test_a_range_without_width_rounds_to_whole_numbers():
    np.testing.assert_array_equal(both([-1, 0, 0.6, 9], 0, 0, Grid(2))[1], [0, 0, 1, 3])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_error_is_at_most_half_a_step_and_zero_is_exact(grid):
    rng = np.random.default_rng(grid.bits)
    x = np.append(rng.uniform(-0.7, 1.9, 500), [0, -0.7, 1.9])
    codes, values = (np.asarray(a) for a in both(x, -0.7, 1.9, grid))
    scale, zero_point = scale_and_zero_point(jnp.float32(-0.7), jnp.float32(1.9), grid)
    assert values[500] == 0 and not np.signbit(values[500])
    np.testing.assert_array_equal(codes, np.round(codes))
    assert grid.qmin <= codes.min() and codes.max() <= grid.qmax
    # The grid may miss an end by half a step, the zero point's rounding.
    assert np.abs(values - x)[:501].max() <= scale * (1 if not grid.symmetric else 0.51)
    inside = (x >= (grid.qmin - zero_point) * scale) & (
        x <= (grid.qmax - zero_point) * scale
    )
    assert np.abs(values - x)[inside].max() <= scale * 0.5001
    # What is on the grid stays.
    again, _ = both(values, -0.7, 1.9, grid)
    np.testing.assert_array_equal(again, codes)


def test_channels_have_ranges_of_their_own():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    low, high = jnp.asarray([-1.0, -2, 0, 0]), jnp.asarray([1.0, 1, 3, 0])
    codes, values = codes_and_values(x, low, high, Grid(3))
    rows = codes_and_values(x, low.reshape(1, 1, 4), high.reshape(1, 1, 4), Grid(3))
    np.testing.assert_array_equal(rows, (codes, values))
    for c in range(4):
        one = both(x[..., c], low[c], high[c], Grid(3))
        np.testing.assert_array_equal(one, (codes[..., c], values[..., c]))


def test_codes_are_the_same_jitted_with_known_scales_and_not():
    x = jnp.asarray(np.random.default_rng(1).normal(size=4000), jnp.float32)
    low, high = jnp.float32(-1.2345), jnp.float32(2.3456)
    # Ties, to within a rounding error, of 255 levels.
    x = jnp.concatenate([x, (jnp.arange(-90, 160) + 0.5) * ((high - low) / 255)])

    def run(x, low, high):
        scale, zero_point = scale_and_zero_point(low, high, Grid(8))
        return quantize(x, scale, zero_point, Grid(8))

    eager = run(x, low, high)
    np.testing.assert_array_equal(jax.jit(run)(x, low, high), eager)
    np.testing.assert_array_equal(jax.jit(lambda x: run(x, low, high))(x), eager)


@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 4), (4, 1), (1, 1, 1, 5)])
def test_scales_of_another_shape_are_refused(shape):
    x, scale = jnp.zeros((2, 3, 4)), jnp.ones(shape)
    with pytest.raises(ValueError, match=r"\(4,\) or \(1, ..., 4\) for values of"):
        quantize(x, scale, scale, Grid(4))
