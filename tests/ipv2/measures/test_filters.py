"""Tests of ipv2.measures.filters."""

import numpy as np
import pytest
from scipy import ndimage

from common.errors import UserError
from ipv2.measures import filters
from ipv2.measures.filters import FILTERS, check_filters, choose_strength, noise_sd_hu


def _pair(noise_hu: float = 40, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A noisy disc and the disc, HU."""
    y, x = np.mgrid[:size, :size] - size / 2
    truth = np.where(np.hypot(x, y) < size / 3, 40.0, -850.0)
    truth = ndimage.gaussian_filter(truth, 0.8).astype(np.float32)
    noise = noise_hu * np.random.default_rng(0).standard_normal(truth.shape)
    return (truth + noise).astype(np.float32), truth


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_removes_noise_and_keeps_hu(name):
    noisy, truth = _pair()
    strength, at_end = choose_strength(name, [(noisy, truth, 40.0)])
    quiet = FILTERS[name].apply(noisy, strength, 40.0)
    assert quiet.shape == truth.shape and not at_end
    error = np.sqrt(np.mean((quiet - truth) ** 2))
    # A Gaussian cannot smooth without blurring the edge; the others can.
    assert error < (0.9 if name == "gaussian" else 0.5) * 40
    inner = truth > 39.9
    # Total variation lowers contrast: by 2 * weight / radius on a disc, 60 / 21 here
    # for a weight of 30, and as much again by what it takes from noise at the edge.
    assert abs(np.mean(quiet[inner] - truth[inner])) < (8 if name == "tv" else 3)


@pytest.mark.parametrize("name", FILTERS)
def test_more_noise_asks_for_no_weaker_filter(name):
    weak, truth = _pair(10)
    strong, _ = _pair(80)
    low = choose_strength(name, [(weak, truth, 40.0)])[0]
    high = choose_strength(name, [(strong, truth, 40.0)])[0]
    assert high > low


def test_the_chosen_strength_has_the_smallest_error(monkeypatch):
    shift = filters.Filter(lambda image, strength, noise: image + strength, (1, 2, 3))
    monkeypatch.setattr(filters, "FILTERS", {"shift": shift})
    image = np.zeros((4, 4))
    assert choose_strength("shift", [(image, image + 2.2, 1.0)]) == (2, False)
    assert choose_strength("shift", [(image, image + 9, 1.0)]) == (3, True)


def test_noise_is_measured_in_the_body():
    noisy, truth = _pair(40, size=128)
    found = noise_sd_hu(noisy, truth > 39)
    # The map reads 3 % low in white noise.
    assert found == pytest.approx(40 * 0.97, rel=0.05)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(
        filters.importlib.util, "find_spec", lambda name: None if name == "bm3d" else 1
    )
    check_filters(("gaussian", "tv", "nlm"))
    with pytest.raises(UserError, match=r"\(bm3d\).*requirements-filters.txt"):
        check_filters(("tv", "bm3d"))
