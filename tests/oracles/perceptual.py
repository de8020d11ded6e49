"""GMSD, MS-SSIM and VIF of float64 images in SciPy, after the authors' MATLAB code."""

import numpy as np
from scipy import ndimage
from scipy.signal import convolve2d


def gmsd(x: np.ndarray, y: np.ndarray) -> float:
    """Gradient magnitude similarity deviation of images from 0 to 255."""
    prewitt = np.array([[1, 0, -1]] * 3) / 3
    maps = []
    for image in (x, y):
        # MATLAB's conv2(..., "same") with an even kernel: the mean of i and i + 1.
        padded = np.pad(image, (0, 1))
        small = convolve2d(padded, np.ones((2, 2)) / 4, mode="valid")[::2, ::2]
        parts = [convolve2d(small, k, mode="same") for k in (prewitt, prewitt.T)]
        maps.append(np.sqrt(parts[0] ** 2 + parts[1] ** 2))
    a, b = maps
    return float(np.std((2 * a * b + 170) / (a**2 + b**2 + 170)))


def ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Multi-scale SSIM of images from 0 to 255."""
    result = 1.0
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scale, weight in enumerate(weights):
        luminance, structure = _ssim_terms(x, y)
        last = scale == len(weights) - 1
        result *= np.mean(luminance * structure if last else structure) ** weight
        # "symmetric" of imfilter; the origin -1 makes the mean that of i and i + 1.
        x, y = (
            ndimage.uniform_filter(image, 2, mode="reflect", origin=-1)[::2, ::2]
            for image in (x, y)
        )
    return float(result)


def vifp(image: np.ndarray, reference: np.ndarray, noise: float = 2.0) -> float:
    """Visual information fidelity in the pixel domain, vifp_mscale.m."""
    kept = whole = 0.0
    for scale in range(1, 5):
        size = 2 ** (4 - scale + 1) + 1
        window = _gaussian(size, size / 5)
        if scale > 1:
            image, reference = (
                convolve2d(a, window, mode="valid")[::2, ::2]
                for a in (image, reference)
            )
        _, _, variance, image_variance, both = _moments(reference, image, window)
        variance, image_variance = (
            np.maximum(variance, 0),
            np.maximum(image_variance, 0),
        )
        gain = both / (variance + 1e-10)
        rest = image_variance - gain * both
        flat = variance < 1e-10
        gain[flat], variance[flat], rest[flat] = 0, 0, image_variance[flat]
        flat = image_variance < 1e-10
        gain[flat], rest[flat] = 0, 0
        rest[gain < 0] = image_variance[gain < 0]
        gain[gain < 0] = 0
        rest[rest <= 1e-10] = 1e-10
        kept += np.sum(np.log10(1 + gain**2 * variance / (rest + noise)))
        whole += np.sum(np.log10(1 + variance / noise))
    return float(kept / whole)


def _ssim_terms(x, y):
    mean_x, mean_y, xx, yy, xy = _moments(x, y, _gaussian(11, 1.5))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * xy + c2) / (xx + yy + c2)


def _moments(x, y, window):
    mean_x, mean_y, xx, yy, xy = (
        convolve2d(a, window, mode="valid") for a in (x, y, x * x, y * y, x * y)
    )
    return mean_x, mean_y, xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y


def _gaussian(size, sigma):
    offset = np.arange(size) - size // 2
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * sigma**2))
    return window / window.sum()
