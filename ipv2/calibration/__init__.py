"""The scanner behind a user's own images: photons, electronic noise, kernel.

scanner.py         `calibrate`, and what it returns
flat_patches.py    where an image shows noise and little else
ray_noise.py       the spectrum that the model predicts there
patch_spectra.py   measured and predicted spectra, of one image or a pair
spectrum_fit.py    the parameters that make them agree
robust_fit.py      ... without patches that hold anatomy
"""

from ipv2.calibration.scanner import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
