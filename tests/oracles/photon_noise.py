"""The published low-dose recipe with scikit-image and NumPy's legacy generator."""

import warnings

import numpy as np

from ipv2.kernels.projection import filtered_backprojection, radon, uniform_angles
from tests.oracles.projection import skimage_backprojection, skimage_sinogram


def photons(mas=2.5):
    """Counts of a ray that nothing attenuates."""
    return (0.015 * mas + 0.1002) * 200 * 1000


def reference_lines(image):
    """(views, bins) of an (n, n) image, all of its square in the sums."""
    image = np.asarray(image, np.float64)
    x = (image - image.min()) / (image.max() - image.min())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Radon transform: image must be zero")
        return skimage_sinogram(x, uniform_angles(len(x))) / 500


def reference_counts(line, *, seed, mas=2.5):
    """(views, bins) counts as `np.random.seed(seed)` draws them: bins by views."""
    rng = np.random.RandomState(seed)
    mean = photons(mas) * np.exp(-line.T)
    return (rng.poisson(mean) + rng.normal(0, 0.05 * np.sqrt(mean))).T


def reference_image(counts, *, mas=2.5):
    """(n, n) uint8 of (views, bins) counts."""
    again = np.where(counts > 0, -np.log(np.maximum(counts, 1e-9) / photons(mas)), 0)
    angle = uniform_angles(len(counts))
    result = skimage_backprojection(500 * again, angle, "hann")
    result = (result - result.min()) / (result.max() - result.min())
    return (255 * result).astype(np.uint8)


def reference_noise(image, *, seed, mas=2.5):
    """(n, n) uint8: the whole recipe."""
    counts = reference_counts(reference_lines(image), seed=seed, mas=mas)
    return reference_image(counts, mas=mas)


def expected_noise(image_hu, spacing_mm, scan):
    """(h, w) HU: the mean of the noise that `scan` adds, photon starvation included.

    E[-ln(max(n, 1) / (a N))] of every ray, by numerical integration over the count that
    reaches the detector (binomial, as a normal of the same skewness, and electronics),
    reconstructed. To first order (1 - a) / (2 a N).
    """
    angle = uniform_angles(scan.views or max(image_hu.shape))
    mu = scan.mu_water_per_mm * np.maximum(1 + image_hu / 1000, 0)
    line = np.maximum(np.asarray(radon(mu, angle, spacing_mm=spacing_mm)), 0.0)
    ratio = scan.dose / scan.input_dose
    mean = scan.dose * scan.photons * np.exp(-line.astype(np.float64))
    variance = (1 - ratio) * mean + (1 - ratio**2) * scan.electronic_variance
    skewness = (1 - ratio) * (1 - 2 * ratio) * mean / np.maximum(variance, 1e-9) ** 1.5
    # Gauss-Hermite; Cornish-Fisher to first order.
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    bias = np.zeros_like(mean)
    for z, share in zip(node, weight / weight.sum(), strict=True):
        value = mean + np.sqrt(variance) * (z + skewness * (z * z - 1) / 6)
        bias -= share * np.log(np.maximum(value, 1.0) / mean)
    reconstructed = filtered_backprojection(
        bias.astype(np.float32),
        angle,
        scan.filter_name,
        cutoff=scan.cutoff,
        spacing_mm=spacing_mm,
    )
    return np.asarray(reconstructed) * 1000 / scan.mu_water_per_mm
