import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.training.patches import random_patches


def _keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def _numbered(b, h, w):
    """Returns slices of distinct pixel values; channel 1 is minus channel 0."""
    place = jnp.arange(b * h * w, dtype=jnp.float32).reshape(b, h, w)
    return jnp.stack([place, -place], axis=-1)


@pytest.mark.slow
def test_patches_are_windows_of_their_slice_up_to_flips():
    images = _numbered(3, 12, 17)
    patches = np.asarray(random_patches(_keys(3), images, size=5, count=4))
    assert patches.shape == (12, 5, 5, 2)
    for index, patch in enumerate(patches):
        window = np.sort(patch[..., 0].ravel()).reshape(5, 5)
        first = int(window[0, 0])
        source, row, column = first // 204, first % 204 // 17, first % 17
        assert source == index // 4
        expected = images[source, row : row + 5, column : column + 5, 0]
        np.testing.assert_array_equal(window, expected)
        flips = [patch[::a, ::b, 0] for a in (1, -1) for b in (1, -1)]
        assert any(np.array_equal(flip, expected) for flip in flips)


@pytest.mark.slow
def test_channels_stay_aligned():
    patches = random_patches(_keys(2), _numbered(2, 9, 9), size=4, count=8)
    np.testing.assert_array_equal(patches[..., 0], -patches[..., 1])


@pytest.mark.slow
def test_every_place_and_every_flip_occurs():
    images = _numbered(1, 4, 3)[..., :1]
    patches = np.asarray(random_patches(_keys(1), images, size=2, count=400))
    kinds = {patch.tobytes() for patch in patches}
    assert len(kinds) == 3 * 2 * 4


@pytest.mark.slow
@pytest.mark.optimized
def test_a_slice_does_not_depend_on_its_batch():
    keys, images = _keys(4), _numbered(4, 9, 9)
    together = random_patches(keys, images, size=4, count=3)
    alone = random_patches(keys[2:3], images[2:3], size=4, count=3)
    np.testing.assert_array_equal(together[6:9], alone)


@pytest.mark.slow
def test_a_patch_of_the_whole_slice():
    patches = random_patches(_keys(1), _numbered(1, 6, 6), size=6, count=2)
    assert patches.shape == (2, 6, 6, 2)


def test_too_large_a_patch_is_refused():
    with pytest.raises(ValueError, match="slices are 6 x 4, a patch is 5 x 5"):
        random_patches(_keys(1), _numbered(1, 6, 4), size=5, count=1)
