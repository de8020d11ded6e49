"""Measures the scanner of a user's images: photons, electronic noise, kernel.

scanner.py         `calibrate`, and its result
scan_input.py      checks what `calibrate` is given
flat_patches.py    finds places of one image that show almost only noise
body_patches.py    finds all of the body, for the difference of an aligned pair
ray_noise.py       predicts the model's spectrum there
patch_spectra.py   measures and predicts spectra of patches
pair_spectra.py    chooses which spectra of a pair are used
spectrum_fit.py    fits the parameters to the spectra
robust_fit.py      fits without patches that hold anatomy
bowtie_fit.py      finds the bowtie filter of an aligned pair
photons_error.py   states how far the photons may be off
"""

from ipv2.calibration.scanner import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
