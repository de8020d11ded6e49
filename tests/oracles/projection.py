"""Slow projectors: the band-limited model by explicit sums, and scikit-image's."""

import numpy as np
from skimage.transform import iradon
from skimage.transform import radon as skimage_radon


def direct_radon(image, angle_rad, *, detectors, padded):
    """Band-limited line integrals: every Fourier sample as a sum over all pixels."""
    h, w = image.shape
    y, x = np.mgrid[:h, :w].astype(np.float64)
    y, x = y - h // 2, x - w // 2
    frequency = np.arange(padded // 2 + 1) / padded
    position = np.arange(detectors) - detectors // 2
    sinogram = np.empty((len(angle_rad), detectors))
    # irfft: all frequencies but zero and the last count twice.
    count = np.where((frequency == 0) | (frequency == 0.5), 1.0, 2.0) / padded
    for view, angle in enumerate(angle_rad):
        along = x * np.cos(angle) - y * np.sin(angle)
        spectrum = np.array(
            [np.sum(image * np.exp(-2j * np.pi * f * along)) for f in frequency]
        )
        phase = np.exp(2j * np.pi * frequency[None] * position[:, None])
        # The last frequency: irfft reads the real part at the padded view's centre.
        sinogram[view] = np.real(phase * spectrum[None]) @ count
    return sinogram


def skimage_sinogram(image, angle_rad):
    """(n, d) for an image that is zero outside its inscribed circle."""
    return skimage_radon(image, np.rad2deg(angle_rad), circle=True).T


def skimage_backprojection(sinogram, angle_rad, filter_name):
    """(d, d), zero outside the inscribed circle."""
    return iradon(
        sinogram.T,
        np.rad2deg(angle_rad),
        filter_name=filter_name,
        circle=True,
    )
