"""Frequency responses of the filters of filtered backprojection."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

FilterName: TypeAlias = Literal[
    "ramp", "shepp-logan", "cosine", "hamming", "hann", "none"
]
FILTERS: tuple[str, ...] = get_args(FilterName)
# At 4, hann keeps 85 % of the ramp at Nyquist; larger cutoffs hardly differ.
LARGEST_CUTOFF = 4


def filter_response(
    filter_name: str,
    padded: int,
    *,
    cutoff: float | int = 1.0,
    window: Sequence[float] = (),
    linear_interpolation: bool = False,
) -> np.ndarray:
    """Returns the frequency response of a reconstruction filter.

    The ramp is the transform of its band-limited spatial form, h(0) = 1/4,
    h(odd m) = -1 / (pi m)^2, h(even m) = 0 (Kak and Slaney 1988, equation 3.61):
    sampling |f| itself would zero the mean of the image. With u = f / cutoff, f in
    cycles per bin, the windows are zero beyond u = 1/2 and otherwise:

    shepp-logan sin(pi u) / (pi u); cosine cos(pi u); hann 0.5 + 0.5 cos(2 pi u);
    hamming 0.54 + 0.46 cos(2 pi u).

    Args:
      filter_name: a name of `FILTERS`.
      padded: even length of a view's FFT.
      cutoff: end of the window as a fraction of the detector's Nyquist frequency, in
        (0, 4]: lower is softer. Above 1, Nyquist cuts the window before its end, which
        gives a sharper kernel: at 4, hann keeps 85 % of the ramp at Nyquist.
      window: factors on the filter at evenly spaced frequencies from zero to Nyquist,
        linear between them, each in [0, 100]; empty for none. A calibration measures
        them; they describe any clinical kernel, including edge enhancement.
      linear_interpolation: whether to imitate backprojection that interpolates linearly
        between bins, like scikit-image's: its factor sinc(f)^2 and its aliases give
        sum_m sinc(f + m)^4 = (2 + cos(2 pi f)) / 3 of the power.

    Returns:
      (padded // 2 + 1,) float32.

    Raises:
      ValueError: The name is unknown, the cutoff is outside (0, 4], or the factors make
        no window.
    """
    if filter_name not in FILTERS:
        raise ValueError(f"filter_name = {filter_name!r}; one of {', '.join(FILTERS)}.")
    if not 0 < cutoff <= LARGEST_CUTOFF:
        raise ValueError(
            f"cutoff = {cutoff}; a fraction of the detector's Nyquist frequency in "
            f"(0, {LARGEST_CUTOFF}]: below 1 softer, above 1 sharper."
        )
    factor = np.asarray(window, np.float64)
    if (
        factor.ndim != 1
        or factor.size == 1
        or not np.all((factor >= 0) & (factor <= 100))
    ):
        raise ValueError(
            f"window = {window}; factors in [0, 100] at two frequencies or more, or ()."
        )
    frequency = np.arange(padded // 2 + 1) / padded
    if filter_name == "none":
        response = np.ones_like(frequency)
    else:
        lag = np.minimum(np.arange(padded), padded - np.arange(padded))
        odd = lag % 2 == 1
        ramp = np.where(odd, -1 / (math.pi * np.where(odd, lag, 1)) ** 2, 0.0)
        ramp[0] = 0.25
        u = frequency / cutoff
        named = {
            "ramp": np.ones_like(u),
            "shepp-logan": np.sinc(u),
            "cosine": np.cos(math.pi * u),
            "hann": 0.5 + 0.5 * np.cos(2 * math.pi * u),
            "hamming": 0.54 + 0.46 * np.cos(2 * math.pi * u),
        }[filter_name]
        # 1e-9: the last frequency belongs to the window, whatever the rounding of u.
        response = np.fft.rfft(ramp).real * np.where(u <= 0.5 + 1e-9, named, 0.0)
    if factor.size:
        knots = np.linspace(0, 0.5, factor.size)
        response = response * np.interp(frequency, knots, factor)
    if linear_interpolation:
        response = response * np.sqrt((2 + np.cos(2 * math.pi * frequency)) / 3)
    return response.astype(np.float32)
