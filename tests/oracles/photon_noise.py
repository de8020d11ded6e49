"""The published low-dose recipe with scikit-image and NumPy's own Poisson sampler."""

import numpy as np

from tests.oracles.projection import skimage_backprojection, skimage_sinogram


def reference_noise(image, *, seed, mas=2.5):
    """(n, n) uint8; image is zero outside its inscribed circle."""
    rng = np.random.default_rng(seed)
    size = image.shape[0]
    angle = np.arange(size) * np.pi / size
    x = (image - image.min()) / (image.max() - image.min())
    line = skimage_sinogram(x, angle) / 500
    photons = (0.015 * mas + 0.1002) * 200 * 1000
    mean = photons * np.exp(-line)
    seen = rng.poisson(mean) + rng.normal(0, 0.05 * np.sqrt(mean))
    again = np.where(seen > 0, -np.log(np.maximum(seen, 1e-9) / photons), 0)
    result = skimage_backprojection(500 * again, angle, "hann")
    result = (result - result.min()) / (result.max() - result.min())
    return np.round(255 * result).astype(np.uint8)
