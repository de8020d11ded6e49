import numpy as np
import pytest

from acq.deploy.folding import fold

X_SCALE = np.float32(0.03)


def folded(codes, *, scale=0.1, factor=1.0, shift=0.0, highest=255):
    """Returns the kernel of columns of codes, a channel each."""
    codes = np.asarray(codes, np.int8)
    each = (np.full(codes.shape[-1], value) for value in (scale, factor, shift))
    return fold(codes, *each, float(X_SCALE), highest)


def value_of(kernel, x):
    """Returns what an integer runtime computes of steps `x`, in float64."""
    total = x @ kernel.codes.astype(np.int64) + kernel.bias
    return total * kernel.bias_scale.astype(np.float64)


@pytest.mark.parametrize("levels", [1, 3, 7, 63, 127])
def test_the_integers_compute_convolution_and_normalisation(levels):
    rng = np.random.default_rng(levels)
    codes = rng.integers(-levels, levels + 1, (12, 5)).astype(np.int8)
    scale, factor, shift = rng.random(5) + 0.1, rng.normal(size=5), rng.normal(size=5)
    kernel = fold(codes, scale, factor, shift, float(X_SCALE), 255)
    x = rng.integers(-255, 256, (50, 12))
    true = x @ codes.astype(np.int64) * scale * X_SCALE * factor + shift
    # Half a step of the bias, and float32's rounding of the scales.
    error = kernel.bias_scale / 2 + 1e-6 * np.abs(true).max(0)
    assert np.all(np.abs(value_of(kernel, x) - true) <= error)
    np.testing.assert_array_equal(kernel.bias_scale, kernel.scale * np.float32(X_SCALE))


def test_a_negative_factor_goes_to_the_codes_and_its_size_to_the_scale():
    kernel = folded([[50], [-20]], factor=-2.0)
    np.testing.assert_array_equal(kernel.codes, [[-50], [20]])
    np.testing.assert_allclose(kernel.scale, 0.2, rtol=1e-7)


def test_codes_of_few_bits_are_multiplied_by_a_power_of_two_that_the_scale_undoes():
    kernel = folded([[7], [-3]])
    np.testing.assert_array_equal(kernel.codes, [[56], [-24]])
    np.testing.assert_allclose(kernel.scale, 0.1 / 8, rtol=1e-7)


@pytest.mark.parametrize(
    ("codes", "highest", "saturates"),
    [
        ([[64], [-64]], 255, False),
        ([[65], [0]], 255, True),
        ([[-127], [0]], 255, True),
        ([[127], [0]], 127, False),
        ([[7], [1]], 255, False),
    ],
)
def test_two_products_above_16_bits_are_seen(codes, highest, saturates):
    assert folded(codes, highest=highest).saturates is saturates


def test_saturates_only_where_16_bits_would():
    for code in (64, 65, 127):
        pair = 2 * 255 * code
        assert folded([[code]]).saturates == (pair > 2**15 - 1)


def test_a_channel_of_factor_0_is_its_shift():
    kernel = folded([[50], [-20]], factor=0.0, shift=0.75)
    np.testing.assert_array_equal(kernel.codes, 0)
    np.testing.assert_allclose(value_of(kernel, np.ones((1, 2), int)), 0.75, rtol=1e-6)


def test_a_bias_beyond_32_bits_gets_a_larger_scale_and_stays_itself():
    kernel = folded([[50], [-20]], factor=1e-12, shift=3.0)
    assert np.abs(kernel.bias).max() <= 2**30
    np.testing.assert_allclose(value_of(kernel, np.zeros((1, 2), int)), 3, rtol=1e-6)


def test_a_channel_of_zeros_has_no_infinite_codes():
    kernel = folded([[0], [0]])
    np.testing.assert_array_equal(kernel.codes, 0)
    assert np.all(kernel.scale > 0)
