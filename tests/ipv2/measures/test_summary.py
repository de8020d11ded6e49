"""Tests of ipv2.measures.summary."""

import numpy as np

from ipv2.measures.summary import mean_spectra


def test_a_mean_spectrum_is_over_the_slices_that_have_one():
    power = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 6.0]])
    frequency = np.array([[0.1, 0.2], [0.1, 0.2], [0.3, 0.4]])
    found = mean_spectra(
        {
            "input": {"frequency_per_mm": frequency, "power_hu2_mm2": power},
            "output": {
                "frequency_per_mm": frequency,
                "power_hu2_mm2": np.full_like(power, np.nan),
            },
        }
    )
    assert found == {
        "input": {"frequency_per_mm": [0.2, 0.3], "power_hu2_mm2": [2.0, 4.0], "n": 2},
        "output": {"frequency_per_mm": None, "power_hu2_mm2": None, "n": 0},
    }
