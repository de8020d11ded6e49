"""Tests of ipv2.kernels.drawn_scans."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ipv2.kernels.drawn_scans import (
    ScanRanges,
    draw_scans,
    drawn_responses,
    simulate_drawn_scans,
)
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.kernels.reconstruction_filter import filter_response

PARAMS = DoseParams(dose=0.1, views=48)
ALL = ScanRanges(dose=(0.01, 0.5), photons=(1e5, 1e6), cutoff=(0.5, 2.0))


def _body(count: int = 1, size: int = 48) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2
    inside = np.hypot(x, y) < size / 3
    return np.where(inside, 0.0, -1000.0)[None].repeat(count, 0).astype(np.float32)


def _keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def test_without_ranges_it_is_the_fixed_scan():
    image, keys = _body(2), _keys(2)
    drawn = simulate_drawn_scans(keys, image, 6.0, PARAMS, ScanRanges())
    noise_keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)[:, 1]
    fixed = simulate_low_dose(noise_keys, image, 6.0, PARAMS)
    np.testing.assert_array_equal(drawn.low, fixed)
    np.testing.assert_array_equal(drawn.normal, image)


def test_draws_are_log_uniform_and_independent():
    scans, chosen = draw_scans(_keys(4000), PARAMS, ALL, filters=32)
    dose = np.asarray(scans["dose"])
    photons = np.asarray(scans["photons"]) / dose
    for drawn, (low, high) in ((dose, ALL.dose), (photons, ALL.photons)):
        place = np.log(drawn / low) / math.log(high / low)
        # p of 4,000 numbers of a fixed seed; a wrong distribution has one near 0.
        assert stats.kstest(place, "uniform").pvalue > 0.01
    assert stats.chisquare(np.bincount(chosen, minlength=32)).pvalue > 0.01
    assert abs(stats.spearmanr(dose, photons).statistic) < 4 / 4000**0.5
    assert abs(stats.spearmanr(dose, chosen).statistic) < 4 / 4000**0.5
    np.testing.assert_array_equal(scans["ratio"], scans["dose"])


def test_the_current_multiplies_the_photons_and_changes_no_other_draw():
    keys = _keys(4000)
    plain, chosen = draw_scans(keys, PARAMS, ALL, filters=32)
    ranges = dataclasses.replace(ALL, current=(0.5, 2.0))
    scans, same = draw_scans(keys, PARAMS, ranges, filters=32)
    np.testing.assert_array_equal(chosen, same)
    np.testing.assert_array_equal(plain["dose"], scans["dose"])
    current = np.asarray(scans["photons"] / plain["photons"])
    place = np.log(current / 0.5) / math.log(4)
    assert stats.kstest(place, "uniform").pvalue > 0.01
    assert abs(stats.spearmanr(current, plain["photons"]).statistic) < 4 / 4000**0.5


def test_filters_cover_the_range():
    responses = drawn_responses(PARAMS, ALL, 128)
    for place, cutoff in ((0, 0.5), (-1, 2.0)):
        np.testing.assert_array_equal(
            responses[place], filter_response("hann", 128, cutoff=cutoff)
        )
    assert len(drawn_responses(PARAMS, ScanRanges(), 128)) == 1


def test_a_slice_does_not_depend_on_its_batch():
    image, keys = _body(3), _keys(3)
    together = simulate_drawn_scans(keys, image, 6.0, PARAMS, ALL)
    alone = simulate_drawn_scans(keys[1:2], image[1:2], 6.0, PARAMS, ALL)
    np.testing.assert_array_equal(together.low[1], alone.low[0])
    assert np.std(together.low[0] - together.low[2]) > 1


def test_a_target_of_an_image_without_noise_is_a_scan_too():
    """Target and input have the variances of their doses, and noise in common."""
    image = _body(400)
    ranges = ScanRanges(target_dose=0.8)
    params = dataclasses.replace(PARAMS, electronic_variance=0.0)
    scans = simulate_drawn_scans(_keys(400), image, 6.0, params, ranges)
    middle = (slice(None), slice(20, 28), slice(20, 28))
    low, normal = (np.asarray(scan - image)[middle] for scan in scans)
    # Variances go as 1 / dose; thinning adds to the target's own noise. 5 %: those of
    # 400 x 64 values, of which some 8,000 are independent.
    assert np.var(low) / np.var(normal) == pytest.approx(0.8 / 0.1, rel=0.05)
    assert np.mean(low * normal) / np.var(normal) == pytest.approx(1, rel=0.15)


def test_it_works_inside_jit():
    image, keys = _body(2), _keys(2)
    jitted = jax.jit(lambda k, x: simulate_drawn_scans(k, x, 6.0, PARAMS, ALL).low)
    outside = simulate_drawn_scans(keys, image, 6.0, PARAMS, ALL).low
    # Fused differently: rounding of noise of a few hundred HU.
    np.testing.assert_allclose(jitted(keys, jnp.asarray(image)), outside, atol=0.05)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"dose": (0.0, 0.5)}, "dose = "),
        ({"photons": (2e5, 1e5)}, "photons = "),
        ({"cutoff": (1.0, math.inf)}, "cutoff = "),
        ({"current": (2.0, 0.5)}, "current = "),
    ],
)
def test_a_wrong_range_is_refused(ranges, words):
    with pytest.raises(ValueError, match=words):
        ScanRanges(**ranges)


@pytest.mark.parametrize("ranges", [{"dose": (0.1, 2.0)}, {"cutoff": (1.0, 9.0)}])
def test_an_end_that_no_scan_has_is_refused(ranges):
    with pytest.raises(ValueError, match=r"dose = 2.0|cutoff = 9.0"):
        simulate_drawn_scans(_keys(1), _body(), 6.0, PARAMS, ScanRanges(**ranges))


@pytest.mark.parametrize("target_dose", [0.0, 0.3, 1.5])
def test_a_target_noisier_than_its_input_is_refused(target_dose):
    ranges = ScanRanges(dose=(0.1, 0.5), target_dose=target_dose)
    with pytest.raises(ValueError, match=r"target_dose = .* largest dose .* 0.5"):
        simulate_drawn_scans(_keys(1), _body(), 6.0, PARAMS, ranges)


def test_a_fan_beam_is_refused():
    fan = dataclasses.replace(PARAMS, source_distance_mm=600.0)
    with pytest.raises(ValueError, match="parallel"):
        simulate_drawn_scans(_keys(1), _body(), 6.0, fan, ALL)
