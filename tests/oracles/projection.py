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


def sinc_backprojection(sinogram, angle_rad, response, shape, *, finer=16):
    """Filtered backprojection pixel by pixel, band-limited between the bins.

    Each view is filtered by response on its padded length and evaluated on bins finer
    by a zero-padded inverse FFT; what is left to linear interpolation lies 1 / finer of
    a bin apart.
    """
    n, d = sinogram.shape
    padded = 2 * (len(response) - 1)
    spectrum = np.fft.rfft(np.asarray(sinogram, np.float64), padded) * response
    spectrum[:, -1] *= 0.5  # Nyquist, shared with its negative on the finer grid
    view = np.fft.irfft(spectrum, padded * finer) * finer
    view = np.concatenate([view, view[:, :1]], axis=1)
    h, w = shape
    y, x = np.mgrid[:h, :w].astype(np.float64)
    y, x = y - h // 2, x - w // 2
    image = np.zeros(shape)
    position = np.arange(view.shape[1]) / finer
    for one, angle in zip(view, angle_rad, strict=True):
        s = x * np.cos(angle) - y * np.sin(angle) + d // 2
        image += np.interp(np.mod(s, padded), position, one)
    return image * np.pi / n
