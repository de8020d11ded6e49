"""States how far the photons of a calibration may be off, model errors included.

The statistical error of a fit assumes that the model is right. Wrong can be:

kernel     The level of the noise follows from its spectrum by the kernel's response at
           low frequencies, where it is near 1 but not measured. Another family of
           kernels that fits as well gives other photons. Two kernels of one scan
           disagreed because this part was missing.
anatomy    What flat patches hold of it, and how its power falls with frequency.
bowtie     A filter that the images hint at but do not prove, or the error of a fitted
           one.
current    Tube current that changes between slices without being stated. The noise
           shows the mean of 1 / photons; with slices whose logarithm of photons has the
           variance v, this is exp(-v) of the mean (both of a log-normal distribution).
rest       Tapers, interpolated line integrals, rounding of angles.

The parts add as independent errors. The benchmark `tests.benchmarks.calibration --only
coverage` measures how often the interval holds the true value.
"""

import math

import numpy as np

from ipv2.calibration import spectrum_fit
from ipv2.calibration.robust_fit import RobustFit

# Terms of the window to compare with: for a named filter, and for a window of two.
_TERMS_NAMED, _TERMS_WINDOW = 2, 3
# The power of anatomy falls as f^-3 in the model; in organs between these.
_POWERS = (2.0, 4.0)
# Of the rest: predicted spectra are those of simulated noise within this.
_REST = 0.03


def photons_error(found: RobustFit, level_spread: float, bowtie_error: float) -> float:
    """Returns the relative standard error of the photons.

    Args:
      found: the calibration's fit.
      level_spread: relative deviation between slices of the standard deviation of the
        noise over the model's.
      bowtie_error: relative error of the photons by the bowtie filter.
    """
    current = (2 * level_spread) ** 2
    parts = (
        *(float(found.fit.errors[0]), kernel_error(found), anatomy_error(found)),
        *(bowtie_error, current, _REST),
    )
    return math.hypot(*parts)


def kernel_error(found: RobustFit) -> float:
    """Returns the relative error of the photons by the family of the kernel.

    A window has the error of one with a term more, and the change of the photons by
    that term. A named filter has the change by a window, as far as the window's own
    error does not explain it.
    """
    is_window = bool(found.fit.family.window(found.fit.shape))
    terms = _TERMS_WINDOW if is_window else _TERMS_NAMED
    other = found.again(spectrum_fit.window_family(found.fit, terms))
    change = (other.log_photons - found.log_photons) ** 2
    variance = float(other.fit.errors[0]) ** 2
    if is_window:
        return math.sqrt(change + max(variance - float(found.fit.errors[0]) ** 2, 0.0))
    return math.sqrt(max(change - variance, 0.0))


def anatomy_error(found: RobustFit) -> float:
    """Returns the relative change of the photons with other anatomy; 0 without any."""
    if not np.any(found.textured):
        return 0.0
    changes = [
        found.again(found.fit.family, power).log_photons - found.log_photons
        for power in _POWERS
    ]
    return max(abs(change) for change in changes)
