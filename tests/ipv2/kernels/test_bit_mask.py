import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels import bit_mask

SHAPES = [(1, 1), (1, 40), (33, 1), (31, 5), (32, 7), (64, 33), (70, 65)]


def _random(shape, seed=0, density=0.4):
    return np.random.default_rng(seed).random((2, *shape)) < density


@pytest.mark.parametrize("shape", SHAPES)
def test_unpack_inverts_pack_and_padding_bits_are_zero(shape):
    mask = _random(shape)
    words = bit_mask.pack(jnp.asarray(mask))
    assert words.shape == (2, -(-shape[0] // 32), shape[1])
    np.testing.assert_array_equal(bit_mask.unpack(words, shape[0]), mask)
    everything = bit_mask.unpack(words, words.shape[-2] * 32)
    assert not np.asarray(everything)[:, shape[0] :].any()


def test_pack_puts_row_k_in_bit_k():
    mask = np.zeros((34, 2), bool)
    mask[[0, 5, 33], [0, 1, 1]] = True
    np.testing.assert_array_equal(
        bit_mask.pack(jnp.asarray(mask)), np.array([[1, 32], [0, 2]], np.uint32)
    )


@pytest.mark.parametrize("rows", [-65, -33, -32, -1, 0, 1, 31, 32, 40, 64, 70])
@pytest.mark.parametrize("columns", [-9, -1, 0, 3, 8])
def test_shift_moves_pixels_and_brings_in_none(rows, columns):
    mask = _random((70, 8))
    moved = bit_mask.shift(bit_mask.pack(jnp.asarray(mask)), rows, columns)
    padded = np.pad(mask, ((0, 0), (100, 100), (100, 100)))
    expected = padded[:, 100 - rows : 170 - rows, 100 - columns : 108 - columns]
    np.testing.assert_array_equal(bit_mask.unpack(moved, 70), expected)


def test_area_and_constants_count_pixels():
    mask = _random((45, 13))
    words = bit_mask.pack(jnp.asarray(mask))
    np.testing.assert_array_equal(bit_mask.area(words), mask.sum((1, 2)))
    assert bit_mask.area(jnp.asarray(bit_mask.frame(45, 13))) == 45 * 13
    assert bit_mask.area(jnp.asarray(bit_mask.border(45, 13))) == 2 * (45 + 11)
    assert bit_mask.area(jnp.asarray(bit_mask.border(1, 3))) == 3
    assert bit_mask.area(jnp.asarray(bit_mask.corner(45, 13))) == 1


def test_unpack_refuses_more_rows_than_it_has():
    words = jnp.zeros((1, 4), jnp.uint32)
    with pytest.raises(ValueError, match="at most 32 rows of pixels, got height=33"):
        bit_mask.unpack(words, 33)


def test_pack_agrees_under_vmap_and_jit():
    mask = jnp.asarray(_random((33, 9)))
    words = bit_mask.pack(mask)
    np.testing.assert_array_equal(jax.vmap(bit_mask.pack)(mask), words)
    np.testing.assert_array_equal(jax.jit(bit_mask.pack)(mask), words)
