import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels import bit_mask, morphology

SHAPES = [(1, 1), (2, 9), (33, 5), (40, 37)]
CROSS = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))


def _random(shape, density):
    return np.random.default_rng(1).random((3, *shape)) < density


def _run(operation, mask, *args):
    words = operation(bit_mask.pack(jnp.asarray(mask)), *args)
    height = mask.shape[-2]
    whole = np.asarray(bit_mask.unpack(words, words.shape[-2] * 32))
    assert not whole[:, height:].any(), "padding bits are set"
    return whole[:, :height]


def _opencv(mask, operation, kernel):
    images = [cv2.morphologyEx(m.astype(np.uint8), operation, kernel) for m in mask]
    return np.stack(images) > 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.3, 0.8, 1.0])
def test_cross_operations_equal_opencv(shape, density):
    mask = _random(shape, density)
    height = shape[0]
    for ours, theirs in (
        (morphology.dilate, cv2.MORPH_DILATE),
        (morphology.erode, cv2.MORPH_ERODE),
        (morphology.opening, cv2.MORPH_OPEN),
    ):
        expected = _opencv(mask, theirs, CROSS)
        np.testing.assert_array_equal(_run(ours, mask, height), expected)


@pytest.mark.slow
@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_disc_operations_equal_opencv_with_the_same_octagon(radius):
    size = 2 * radius + 1
    point = np.zeros((1, size, size), bool)
    point[0, radius, radius] = True
    octagon = _run(morphology.dilate_disc, point, size, radius)[0].astype(np.uint8)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = np.hypot(x, y) <= radius
    assert (octagon[inside] == 1).mean() > 0.95
    mask = _random((50, 41), 0.7)
    for ours, theirs in (
        (morphology.erode_disc, cv2.MORPH_ERODE),
        (morphology.opening_disc, cv2.MORPH_OPEN),
    ):
        expected = _opencv(mask, theirs, octagon)
        np.testing.assert_array_equal(_run(ours, mask, 50, radius), expected)
    sparse = _random((50, 41), 0.05)
    expected = _opencv(sparse, cv2.MORPH_CLOSE, octagon)
    np.testing.assert_array_equal(
        _run(morphology.closing_disc, sparse, 50, radius), expected
    )


def test_disc_refuses_a_negative_radius():
    with pytest.raises(ValueError, match="radius must be at least 0, got -1"):
        morphology.dilate_disc(jnp.zeros((1, 4), jnp.uint32), 4, -1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.1, 0.5])
def test_neighbour_filter_and_majority_count_neighbours(shape, density):
    mask = _random(shape, density)
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1))).astype(int)
    h, w = shape
    block = sum(padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3))
    np.testing.assert_array_equal(
        _run(morphology.has_neighbour, mask), mask & (block - mask >= 1)
    )
    np.testing.assert_array_equal(_run(morphology.majority, mask, h), block >= 5)


def test_grow_stays_within_and_counts_steps():
    within = np.zeros((1, 40, 5), bool)
    within[0, :, 2] = True
    within[0, :, 4] = True
    seed = np.zeros_like(within)
    seed[0, 30, 2] = True
    grown = bit_mask.unpack(
        morphology.grow(
            bit_mask.pack(jnp.asarray(seed)), bit_mask.pack(jnp.asarray(within)), 3
        ),
        40,
    )
    expected = np.zeros_like(within)
    expected[0, 27:34, 2] = True
    np.testing.assert_array_equal(grown, expected)
