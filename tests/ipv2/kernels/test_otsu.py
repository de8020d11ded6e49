from fractions import Fraction

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels import otsu

threshold = jax.jit(otsu.otsu_from_histogram)
SHAPES = [(1, 1), (9, 11), (64, 48)]


def _exact(image):
    """Otsu's threshold in rational arithmetic, the lowest of equals."""
    counts = np.bincount(image.ravel(), minlength=256)
    total, total_sum = int(counts.sum()), int((counts * np.arange(256)).sum())
    best, best_t, n, s = Fraction(0), 0, 0, 0
    for t in range(256):
        n, s = n + int(counts[t]), s + int(counts[t]) * t
        if 0 < n < total:
            value = Fraction((total * s - n * total_sum) ** 2, n * (total - n))
            if value > best:
                best, best_t = value, t
    return best_t


def _images(shape):
    rng = np.random.default_rng(6)
    two_modes = np.where(rng.random(shape) < 0.4, 60, 170) + rng.normal(0, 25, shape)
    return np.stack(
        [
            rng.integers(0, 256, shape),
            rng.integers(0, 3, shape) * 100,
            np.clip(two_modes, 0, 255),
            np.full(shape, 0),
            np.full(shape, 255),
            np.where(rng.random(shape) < 0.5, 0, 255),
        ]
    ).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_histogram_counts(shape):
    images = _images(shape)
    expected = [np.bincount(image.ravel(), minlength=256) for image in images]
    np.testing.assert_array_equal(otsu.histogram(jnp.asarray(images)), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_threshold_is_exact_and_binarises_as_opencv(shape):
    images = _images(shape)
    found = np.asarray(threshold(otsu.histogram(jnp.asarray(images))))
    for image, t in zip(images, found, strict=True):
        assert t == _exact(image)
        _, dark = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
        np.testing.assert_array_equal(image <= t, dark > 0)


def test_neighbouring_thresholds_that_float32_cannot_rank():
    # 2^24 pixels, two modes and a level between them: the variances of the two
    # thresholds differ by less than 1e-7 of their value.
    counts = np.zeros((2, 256), np.int32)
    counts[:, [10, 200]] = 2**23 - 1
    counts[0, [105, 104]] = 1, 1
    counts[1, [105, 106]] = 1, 1
    for row, found in zip(counts, threshold(jnp.asarray(counts)), strict=True):
        n, s, best = 0, 0, (Fraction(0), 0)
        total = int(row.sum())
        total_sum = int((row.astype(np.int64) * np.arange(256)).sum())
        for t in range(256):
            n, s = n + int(row[t]), s + int(row[t]) * t
            if 0 < n < total:
                value = Fraction((total * s - n * total_sum) ** 2, n * (total - n))
                best = max(best, (value, -t))
        assert found == -best[1]


def test_threshold_refuses_empty_images():
    with pytest.raises(ValueError, match="1 to 16777216 pixels per image, got 0 x 4"):
        otsu.otsu_threshold(jnp.zeros((1, 0, 4), jnp.uint8))
