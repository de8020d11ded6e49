"""Filter responses against closed forms."""

import math

import numpy as np
import pytest

from ipv2.kernels.reconstruction_filter import FILTERS, filter_response

PADDED = 1024
FREQUENCY = np.arange(PADDED // 2 + 1) / PADDED


def window(filter_name, cutoff):
    """The filter over the ramp, where the ramp is well above zero."""
    ramp = filter_response("ramp", PADDED)
    return filter_response(filter_name, PADDED, cutoff=cutoff)[1:] / ramp[1:]


def test_ramp_is_the_frequency():
    response = filter_response("ramp", PADDED)
    # The band-limited ramp, cut at lag n / 2, departs from |f| by about 1 / (pi^2 n).
    np.testing.assert_allclose(response, FREQUENCY, atol=2 / (math.pi**2 * PADDED))
    assert 0 < response[0]


@pytest.mark.parametrize(
    ("filter_name", "at_half"),
    [
        ("ramp", 1.0),
        ("shepp-logan", math.sin(math.pi / 4) / (math.pi / 4)),
        ("cosine", math.cos(math.pi / 4)),
        ("hamming", 0.54),
        ("hann", 0.5),
    ],
)
@pytest.mark.parametrize("cutoff", [0.5, 1.0, 1.9, 4.0])
def test_window_stretches_with_the_cutoff_and_ends_there(filter_name, at_half, cutoff):
    found = window(filter_name, cutoff)
    frequency = FREQUENCY[1:]
    if cutoff / 4 <= 0.5:
        # Linear between the frequencies on either side of half the window.
        half = np.interp(cutoff / 4, frequency, found)
        assert half == pytest.approx(at_half, abs=2e-3)
    assert np.all(found[frequency > cutoff / 2 + 1e-6] == 0)
    inside = found[frequency < min(cutoff / 2, 0.5)]
    assert np.all(inside > 0) and np.all(np.diff(inside) <= 1e-6)


def test_cutoff_runs_from_soft_to_nearly_the_ramp():
    energy = [
        np.sum(filter_response("hann", PADDED, cutoff=cutoff) ** 2)
        for cutoff in (0.3, 0.6, 1.0, 1.5, 2.5, 4.0)
    ]
    assert np.all(np.diff(energy) > 0)
    # hann at Nyquist: (1 + cos(pi / 4)) / 2.
    assert window("hann", 4.0)[-1] == pytest.approx(0.8536, abs=1e-4)


def test_none_passes_everything():
    np.testing.assert_array_equal(filter_response("none", 16, cutoff=0.2), 1.0)


def test_linear_interpolation_loses_a_third_of_the_power_at_nyquist():
    plain = filter_response("ramp", PADDED)
    soft = filter_response("ramp", PADDED, linear_interpolation=True)
    assert (soft[-1] / plain[-1]) ** 2 == pytest.approx(1 / 3, rel=1e-5)
    assert soft[0] == plain[0]


@pytest.mark.parametrize("cutoff", [0.0, -1.0, 4.001, math.inf, math.nan])
def test_cutoff_outside_its_range_is_refused(cutoff):
    with pytest.raises(ValueError, match=r"Nyquist frequency in \(0, 4\]"):
        filter_response("hann", PADDED, cutoff=cutoff)


def test_unknown_filters_are_refused_with_the_list():
    with pytest.raises(ValueError, match=", ".join(FILTERS)):
        filter_response("sharp", PADDED)
