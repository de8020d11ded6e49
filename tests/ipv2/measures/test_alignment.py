"""Tests of ipv2.measures.alignment: aligned and misaligned pairs of the phantom."""

import functools

import numpy as np
import pytest

from ipv2.datasets.phantom import patient_records, phantom_config
from ipv2.kernels.photon_noise import DoseParams
from ipv2.measures.alignment import Alignment, alignment_of, tiles_in_place

SIZE = 256
DOSES = (0.02, 0.1, 0.25)


@functools.cache
def _records(dose):
    config = phantom_config(
        size=SIZE, patients=(1, 0, 0), slices=2, noise=DoseParams(dose=dose), seed=3
    )
    return patient_records(config, 0)


def _pairs(dose, reference):
    return [
        (record["lq"].astype(np.float32), record[reference].astype(np.float32))
        for record in _records(dose)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dose", DOSES)
def test_the_truth_of_the_same_breath_is_aligned(dose):
    found = alignment_of(_pairs(dose, "truth"))
    assert found.aligned and found.share > 0.97
    assert found.n_slices == 2 and found.n_tiles > 50


@pytest.mark.slow
@pytest.mark.parametrize("dose", DOSES)
def test_another_breath_is_not_aligned(dose):
    found = alignment_of(_pairs(dose, "gt"))
    # Table, spine and back stay: about half of the tiles.
    assert not found.aligned and 0.3 < found.share < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (2, 1), (5, 5)])
def test_a_shift_of_a_pixel_is_not_aligned(shift):
    pairs = [(a, np.roll(b, shift, (0, 1))) for a, b in _pairs(0.1, "truth")]
    assert not alignment_of(pairs).aligned


def _disc(size=160, shift=0.0):
    """A body with a softer edge in each direction, HU."""
    y, x = np.mgrid[:size, :size] - size / 2
    distance = np.hypot(x - shift, y) - size / 3
    return (-1000 + 1040 / (1 + np.exp(distance))).astype(np.float32)


@pytest.mark.slow
def test_equal_images_are_in_place_and_flat_tiles_do_not_count():
    disc = _disc()
    in_place, counts = tiles_in_place(disc, disc)
    assert in_place.shape == counts.shape == (5, 5)
    assert not counts[2, 2] and not counts[0, 0] and in_place[counts].all()


def test_across_edges_that_moved_tiles_are_not_in_place_and_along_them_they_are():
    in_place, counts = tiles_in_place(_disc(), _disc(shift=3))
    assert not in_place[2, 0] and not in_place[2, 4]
    assert in_place[0, 2] and in_place[4, 2]
    assert counts[2, 0] and counts[0, 2]


def test_edges_that_moved_further_than_the_shifts_are_not_in_place():
    far = _disc()
    far[:, 80:] = np.roll(far[:, 80:], -20, 1)
    found = alignment_of([(_disc(), far)])
    assert not found.aligned and found.share < 0.75


def test_noise_does_not_make_a_pair_misaligned():
    noise = 60 * np.random.default_rng(0).standard_normal((160, 160))
    found = alignment_of([(_disc() + noise.astype(np.float32), _disc())])
    assert found.aligned and found.n_tiles > 10


def test_without_structure_nothing_is_known():
    noise = np.random.default_rng(0).normal(0, 60, (160, 160)).astype(np.float32)
    flat, small = np.zeros_like(noise), _disc(96)
    for pair in ((noise, flat), (flat, flat), (small, small)):
        found = alignment_of([pair])
        assert found == Alignment(None, 0, 1) and not found.aligned
