"""Measures the scanner of a user's images: photons, electronic noise, kernel.

scanner.py         `calibrate`, and its result
flat_patches.py    finds places that show almost only noise
ray_noise.py       predicts the model's spectrum there
patch_spectra.py   measures and predicts spectra of one image or a pair
spectrum_fit.py    fits the parameters to the spectra
robust_fit.py      fits without patches that hold anatomy
"""

from ipv2.calibration.scanner import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
