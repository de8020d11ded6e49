"""Tube current of each slice of a DICOM series."""

import logging

import numpy as np
import pytest

from ipv2.ct_io import read_volume
from ipv2.ct_io.tube_current import exposures_of, relative_current
from ipv2.ct_io.volume import Grid
from ipv2.volumes.low_dose import slice_currents
from tests.ipv2.ct_files import make_slice, save, stored_slice
from tests.ipv2.ct_io.test_dicom_dose import header


def factors(*headers):
    return relative_current([exposures_of(header(**one)) for one in headers])


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ({"XRayTubeCurrent": "100"}, {"XRayTubeCurrent": "300"}, 3),
        # mAs before mA: rotations of different times.
        (
            {"XRayTubeCurrent": "100", "Exposure": "50"},
            {"XRayTubeCurrent": "300", "Exposure": "100"},
            2,
        ),
        # More digits before whole mAs.
        (
            {"Exposure": "2", "ExposureInuAs": "1600"},
            {"Exposure": "2", "ExposureInuAs": "2400"},
            1.5,
        ),
        # The series' mean in every slice, beside the current of each.
        (
            {"XRayTubeCurrent": "100", "Exposure": "150"},
            {"XRayTubeCurrent": "300", "Exposure": "150"},
            3,
        ),
        # An attribute that is not in every slice, or not a number above 0, is no help.
        (
            {"XRayTubeCurrent": "100", "Exposure": "150"},
            {"XRayTubeCurrent": "400"},
            4,
        ),
        (
            {"XRayTubeCurrent": "100", "Exposure": "0"},
            {"XRayTubeCurrent": "400", "Exposure": "9"},
            4,
        ),
    ],
)
def test_currents_are_those_of_the_first_attribute_that_changes(first, second, ratio):
    found = factors(first, second)
    assert found[1] / found[0] == pytest.approx(ratio)
    assert found.mean() == pytest.approx(1)


def test_a_current_that_does_not_change_is_one_and_none_is_none():
    same = {"XRayTubeCurrent": "188", "Exposure": "150"}
    np.testing.assert_array_equal(factors(same, same), [1, 1])
    assert factors({"KVP": "120"}, {"KVP": "120"}) is None
    assert factors(same, {"KVP": "120"}) is None
    assert factors({"XRayTubeCurrent": "auto"}, {"XRayTubeCurrent": "auto"}) is None


def test_a_series_has_its_currents_in_the_order_of_its_slices(tmp_path):
    for index, current in enumerate((100, 200, 600)):
        data = make_slice(stored_slice(index), position=(0, 0, -2.0 * index))
        data.XRayTubeCurrent = str(current)
        save(data, tmp_path / f"IM{index}")
    volume = read_volume(tmp_path)  # ascending along z: the last file comes first
    np.testing.assert_allclose(volume.relative_current, [2, 2 / 3, 1 / 3])
    taken = volume.take([1, 2])
    np.testing.assert_allclose(taken.relative_current, [2 / 3, 1 / 3])


def test_files_without_currents_are_reported_once(caplog):
    caplog.set_level(logging.INFO, logger="absl")
    grid = Grid(spacing_mm=(1.0, 1.0, 1.0), name="x.nii")
    for _ in range(2):
        np.testing.assert_array_equal(slice_currents(grid, 3), np.ones(3))
    assert caplog.text.count("no tube current") <= 1
