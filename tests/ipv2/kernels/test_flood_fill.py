import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import measure

from ipv2.kernels import bit_mask, flood_fill

SHAPES = [(1, 1), (1, 50), (33, 1), (70, 37)]

flood_fill_passes = jax.jit(flood_fill.flood_fill_passes)
largest_component = jax.jit(flood_fill.largest_component)


def _fill(seed, passable):
    height = passable.shape[-2]
    words, passes = flood_fill_passes(
        bit_mask.pack(jnp.asarray(seed)), bit_mask.pack(jnp.asarray(passable))
    )
    return np.asarray(bit_mask.unpack(words, height)), int(passes)


def _oracle(seed, passable):
    reached = np.zeros_like(passable)
    for i, mask in enumerate(passable):
        label = measure.label(mask, connectivity=1)
        reached[i] = np.isin(label, np.unique(label[seed[i] & mask])) & mask
    return reached


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.3, 0.55, 0.65, 0.8])
def test_fill_equals_component_labels(shape, density):
    rng = np.random.default_rng(2)
    passable = rng.random((3, *shape)) < density
    seed = rng.random(passable.shape) < 0.01
    seed[0] = False
    seed[1, 0, 0] = True
    expected = _oracle(seed, passable)
    np.testing.assert_array_equal(_fill(seed, passable)[0], expected)


def _serpentine(size):
    """One corridor, a pixel wide, that turns at the end of every other row."""
    mask = np.ones((1, size, size), bool)
    mask[0, 1::2] = False
    mask[0, 1::4, -1] = True
    mask[0, 3::4, 0] = True
    return mask


def _spiral(size):
    mask = np.zeros((1, size, size), bool)
    y = x = 0
    dy, dx = 0, 1
    mask[0, 0, 0] = True
    for length in [size - 1] * 3 + [n for k in range(size - 3, 0, -2) for n in (k, k)]:
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[0, y, x] = True
        dy, dx = dx, -dy
    return mask


@pytest.mark.parametrize("maze", [_serpentine, _spiral])
def test_fill_follows_a_maze_to_its_end(maze):
    passable = maze(65)
    seed = np.zeros_like(passable)
    seed[0, 0, 0] = True
    reached, passes = _fill(seed, passable)
    np.testing.assert_array_equal(reached, passable)
    # A pass goes along at least one corridor; there are 33 rows, or 33 turns.
    assert passes <= 65


def test_fill_of_open_space_around_a_disc_takes_few_passes():
    y, x = np.mgrid[:128, :128] - 64
    passable = (np.hypot(x, y) > 40)[None]
    seed = np.zeros_like(passable)
    seed[0, 0, 0] = True
    reached, passes = _fill(seed, passable)
    np.testing.assert_array_equal(reached, passable)
    assert passes <= 3


@pytest.mark.slow
def test_fill_in_a_batch_is_each_image_alone():
    passable = np.random.default_rng(3).random((2, 40, 40)) < 0.6
    words = bit_mask.pack(jnp.asarray(passable))
    seed = bit_mask.like(bit_mask.corner(40, 40), words)
    flood = jax.jit(flood_fill.flood_fill)
    alone = jnp.stack([flood(s, w) for s, w in zip(seed, words, strict=True)])
    np.testing.assert_array_equal(flood(seed, words), alone)
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(flood_fill.flood_fill))(seed, words), alone
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.3, 0.6])
def test_largest_component_has_the_largest_area(shape, density):
    mask = np.random.default_rng(4).random((3, *shape)) < density
    words = largest_component(bit_mask.pack(jnp.asarray(mask)))
    found = np.asarray(bit_mask.unpack(words, shape[0]))
    for image, component in zip(mask, found, strict=True):
        label = measure.label(image, connectivity=1)
        area = np.bincount(label.ravel(), minlength=2)[1:].max()
        assert component.sum() == area
        if area:
            value = label[component][0]
            np.testing.assert_array_equal(component, label == value)


def test_flood_volume_equals_3d_labels():
    passable = np.random.default_rng(5).random((6, 33, 20)) < 0.35
    seed = np.zeros_like(passable)
    seed[2] = passable[2]
    words = flood_fill.flood_volume(
        bit_mask.pack(jnp.asarray(seed)), bit_mask.pack(jnp.asarray(passable))
    )
    label = measure.label(passable, connectivity=1)
    expected = np.isin(label, np.unique(label[seed])) & passable
    np.testing.assert_array_equal(bit_mask.unpack(words, 33), expected)
