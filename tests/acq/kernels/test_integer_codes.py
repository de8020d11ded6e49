import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.grid import Grid, dequantize, quantize, scale_and_zero_point
from acq.kernels.integer_codes import from_codes, to_codes, zero_point_dtype


@jax.jit
def stored(x, low, high):
    """For every grid: codes, zero points, their values, and the grid's own."""
    results = {}
    for bits in range(2, 9):
        for symmetric in (False, True):
            grid = Grid(bits, symmetric)
            scale, zero_point = scale_and_zero_point(low, high, grid)
            codes, zeros = to_codes(x, scale, zero_point, grid)
            q = quantize(x, scale, zero_point, grid)
            results[bits, symmetric] = (
                (codes, zeros),
                from_codes(codes, scale, zeros),
                dequantize(q, scale, zero_point),
            )
    return results


def test_codes_are_bytes_and_stand_for_the_grids_values_bit_for_bit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 30, 5)).astype(np.float32)
    x[..., 1], x[..., 2] = abs(x[..., 1]), -abs(x[..., 2])
    x[..., 3] = 0
    low, high = jnp.asarray(x.min((0, 1))), jnp.asarray(x.max((0, 1)))
    for (bits, symmetric), results in stored(jnp.asarray(x), low, high).items():
        (codes, zeros), found, expected = results
        unsigned = bits == 8 and not symmetric
        assert codes.dtype == zeros.dtype == (np.uint8 if unsigned else np.int8)
        assert unsigned or not np.any(zeros)
        np.testing.assert_array_equal(found, expected)
        # A channel of zeros, and the exact integers.
        assert not np.any(found[..., 3])
        steps = codes[..., 0].astype(int) - int(zeros[0])
        assert len(np.unique(steps)) <= 2**bits
        assert np.abs(steps).max() <= 2**bits - 1


@pytest.mark.parametrize(
    ("grid", "codes", "zero_point", "dtype"),
    [
        (Grid(2), [-1, 0, 2], 0, np.int8),
        (Grid(7), [-42, 0, 85], 0, np.int8),
        (Grid(8), [0, 85, 255], 85, np.uint8),
        (Grid(8, symmetric=True), [-64, 0, 127], 0, np.int8),
    ],
    ids=str,
)
def test_offsets(grid, codes, zero_point, dtype):
    ends = jnp.asarray([-1.0]), jnp.asarray([2.0])
    scale, zero = scale_and_zero_point(*ends, grid)
    found, stored_zero = to_codes(jnp.asarray([[-1.0], [0], [2]]), scale, zero, grid)
    assert found.dtype == stored_zero.dtype == dtype
    np.testing.assert_array_equal(found[:, 0], codes)
    np.testing.assert_array_equal(stored_zero, [zero_point])


def test_zero_points_of_activations():
    assert zero_point_dtype(Grid(4)) == np.uint8
    assert zero_point_dtype(Grid(4, symmetric=True)) == np.int8
