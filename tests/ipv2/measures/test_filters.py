"""Tests of ipv2.measures.filters."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from common.errors import UserError
from ipv2.kernels import smoothing
from ipv2.kernels.total_variation import total_variation
from ipv2.measures import filters
from ipv2.measures.filters import (
    FILTERS,
    Batch,
    check_filters,
    choose_strength,
    noise_sd_hu,
)

# BM3D takes seconds an image.
EVERY = [
    pytest.param(name, marks=pytest.mark.slow if name == "bm3d" else ())
    for name in FILTERS
]


def _pair(noise_hu: float = 40, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A noisy disc and the disc, HU."""
    y, x = np.mgrid[:size, :size] - size / 2
    truth = np.where(np.hypot(x, y) < size / 3, 40.0, -850.0)
    truth = ndimage.gaussian_filter(truth, 0.8).astype(np.float32)
    noise = noise_hu * np.random.default_rng(0).standard_normal(truth.shape)
    return (truth + noise).astype(np.float32), truth


def _batch(noisy: np.ndarray, truth: np.ndarray, noise: float = 40) -> Batch:
    return Batch(noisy[None], truth[None], np.array([float(noise)]), 1)


@pytest.mark.parametrize("name", EVERY)
def test_a_filter_removes_noise_and_keeps_hu(name):
    noisy, truth = _pair()
    strength, at_end = choose_strength(name, [_batch(noisy, truth)])
    quiet = np.asarray(FILTERS[name].apply(noisy[None], strength, np.array([40.0])))[0]
    assert quiet.shape == truth.shape and not at_end
    error = np.sqrt(np.mean((quiet - truth) ** 2))
    # A Gaussian cannot smooth without blurring the edge; the others can.
    assert error < (0.9 if name == "gaussian" else 0.5) * 40
    inner = truth > 39.9
    # Total variation lowers contrast: by 2 * weight / radius on a disc, 60 / 21 here
    # for a weight of 30, and as much again by what it takes from noise at the edge.
    assert abs(np.mean(quiet[inner] - truth[inner])) < (8 if name == "tv" else 3)


@pytest.mark.parametrize("name", EVERY)
def test_more_noise_asks_for_no_weaker_filter(name):
    weak, truth = _pair(10)
    strong, _ = _pair(80)
    low = choose_strength(name, [_batch(weak, truth)])[0]
    high = choose_strength(name, [_batch(strong, truth)])[0]
    assert high > low


def test_the_chosen_strength_has_the_smallest_error(monkeypatch):
    shift = filters.Filter(lambda image, strength, noise: image + strength, (1, 2, 3))
    monkeypatch.setattr(filters, "FILTERS", {"shift": shift})
    image = np.zeros((4, 4))
    assert choose_strength("shift", [_batch(image, image + 2.2)]) == (2, False)
    assert choose_strength("shift", [_batch(image, image + 9)]) == (3, True)
    # The mean square over slices, of which the batch's filling is none.
    both = [_batch(image, image + 2), _batch(image, image + 3.6)]
    assert choose_strength("shift", both) == (3, True)
    filled = Batch(np.zeros((2, 4, 4)), image[None] + [[[2]], [[9]]], np.ones(2), 1)
    assert choose_strength("shift", [filled]) == (2, False)


@pytest.mark.parametrize("name", ["gaussian", "tv"])
def test_slices_of_a_batch_have_strengths_of_their_noise(name):
    noisy, _ = _pair()
    both = np.asarray(
        FILTERS[name].apply(np.stack([noisy, noisy]), 1.0, np.array([40.0, 80.0]))
    )
    for index, noise in enumerate((40.0, 80.0)):
        alone = FILTERS[name].apply(noisy[None], 1.0, np.array([noise]))
        # float32 sums of HU of -1000.
        np.testing.assert_allclose(both[index], np.asarray(alone)[0], atol=0.01)


def test_the_filters_are_compiled_once_for_all_strengths():
    noisy, _ = _pair()
    for kernel, name in (
        (filters._gaussian, "gaussian"),
        (filters._total_variation, "tv"),
    ):
        kernel.clear_cache()
        for strength in FILTERS[name].strengths:
            FILTERS[name].apply(noisy[None], strength, np.array([40.0]))
        assert kernel._cache_size() == 1


@pytest.mark.slow
def test_the_gaussian_and_total_variation_are_those_of_the_kernels():
    noisy, _ = _pair()
    for sigma in (0.4, 2.5):
        ours = np.asarray(FILTERS["gaussian"].apply(noisy[None], sigma, np.ones(1)))
        expected = np.asarray(smoothing.gaussian(jnp.asarray(noisy), sigma))
        # The kernel cuts its Gaussian off at 4 sigma: 6e-5 of 900 HU.
        np.testing.assert_allclose(ours[0], expected, atol=0.1)
    ours = np.asarray(FILTERS["tv"].apply(noisy[None], 1.5, np.array([40.0])))
    expected = np.asarray(total_variation(jnp.asarray(noisy), 60.0, 100))
    # float32: other units, 100 times.
    np.testing.assert_allclose(ours[0], expected, atol=0.2)


def test_an_image_without_noise_stays_as_it_is():
    _, truth = _pair()
    quiet = np.asarray(FILTERS["tv"].apply(truth[None], 1.0, np.zeros(1)))
    np.testing.assert_array_equal(quiet[0], truth)


def test_noise_is_measured_in_the_body():
    noisy, truth = _pair(40, size=128)
    body = truth > 39
    found = noise_sd_hu(np.stack([noisy] * 2), np.stack([body, np.zeros_like(body)]))
    # The map reads 3 % low in white noise. Without a body the whole slice counts.
    np.testing.assert_allclose(found, 40 * 0.97, rtol=0.05)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(
        filters.importlib.util, "find_spec", lambda name: None if name == "bm3d" else 1
    )
    check_filters(("gaussian", "tv", "nlm"))
    with pytest.raises(UserError, match=r"\(bm3d\).*requirements-filters.txt"):
        check_filters(("tv", "bm3d"))
