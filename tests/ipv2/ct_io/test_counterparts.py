"""Tests of ipv2.ct_io.counterparts: outputs and the volumes that they belong to."""

import numpy as np
import pydicom
import pytest

from common.errors import UserError
from ipv2.ct_io import list_volumes, read_volume, with_hu, write_volume
from ipv2.ct_io.counterparts import find_counterparts, match_output
from ipv2.ct_io.volume import Volume
from tests.ipv2.ct_files import make_slice, save, stored_slice


def write_series(folder, *, series="1.2.3", count=3, z0=0.0):
    slices = [
        make_slice(stored_slice(i), position=(0, 0, z0 + 2.5 * i), series=series)
        for i in range(count)
    ]
    for index, data in enumerate(slices):
        save(data, folder / f"{index}.dcm")
    return slices


@pytest.fixture
def volumes(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / f"lq/p{number}/scan", series=f"1.2.{number}")
    return {f"p{n}/scan": tmp_path / f"lq/p{n}/scan" for n in (1, 2)}


def found(volumes, folder, **options):
    return find_counterparts(volumes, list_volumes(folder).items, **options)


def test_a_name_counts_before_uids(volumes, tmp_path):
    write_series(tmp_path / "out/p1/scan", series="1.2.2")
    assert found(volumes, tmp_path / "out").paths == {
        "p1/scan": tmp_path / "out/p1/scan"
    }


def test_names_follow_the_pattern_of_the_pairs(volumes, tmp_path):
    path = tmp_path / "out/full_7.mha"
    path.parent.mkdir()
    path.touch()
    volumes = {"7": volumes["p1/scan"]}
    matched = found(volumes, tmp_path / "out", name_pattern="(?:quarter|full)_(.+)")
    assert matched.paths == {"7": path}


def test_a_series_of_the_same_uid_belongs_to_its_volume(volumes, tmp_path):
    write_series(tmp_path / "out/any", series="1.2.2")
    assert found(volumes, tmp_path / "out").paths == {"p2/scan": tmp_path / "out/any"}


def test_a_series_whose_slices_have_the_same_uids_belongs_to_their_volume(
    volumes, tmp_path
):
    for path in sorted(volumes["p1/scan"].iterdir()):
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID = "1.2.77"
        save(data, tmp_path / "out/any" / path.name)
    assert found(volumes, tmp_path / "out").paths == {"p1/scan": tmp_path / "out/any"}


def test_a_series_that_names_its_source_images_belongs_to_their_volume(
    volumes, tmp_path
):
    volume = read_volume(volumes["p2/scan"])
    write_volume(with_hu(volume, volume.hu / 2), tmp_path / "out/denoised")
    assert found(volumes, tmp_path / "out").paths == {
        "p2/scan": tmp_path / "out/denoised"
    }


def test_what_belongs_to_nothing_is_skipped(volumes, tmp_path):
    write_series(tmp_path / "out/other", series="1.2.99")
    (tmp_path / "out/p3").mkdir()
    (tmp_path / "out/p3/scan.nii").touch()
    matched = found(volumes, tmp_path / "out")
    assert matched.paths == {}
    assert {one.path.name for one in matched.skipped} == {"other", "scan.nii"}


def volume(count=3, **options):
    options = {"spacing_mm": (2.0, 0.8, 0.8), "name": "v"} | options
    return Volume(hu=np.zeros((count, 8, 8), np.float32), **options)


def test_slices_are_matched_by_position_or_by_index():
    later = volume(2, origin_mm=(0.0, 0.0, 2.0))
    assert match_output(volume(), later) == {1: 0, 2: 1}
    unplaced = volume(positions_known=False)
    assert match_output(volume(), unplaced) == {0: 0, 1: 1, 2: 2}
    assert match_output(volume(), volume(origin_mm=(9.0, 0, 0)), by="index") == {
        **{0: 0, 1: 1, 2: 2}
    }


def test_a_spacing_that_is_not_stated_is_that_of_the_volume():
    png = volume(spacing_mm=(1.0, 1.0, 1.0), spacing_known=False, positions_known=False)
    assert len(match_output(volume(), png)) == 3


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (volume(2, positions_known=False), "2 slices, lq has 3, and positions do not"),
        (volume(origin_mm=(0.3, 0.0, 0.0)), r"lie \(0\.30, 0\.00, 0\.00\) mm beside"),
        (volume(unit="grey"), "holds grey values, HU are needed"),
        (volume(spacing_mm=(2.0, 0.9, 0.9)), "pixel spacing"),
        (volume(origin_mm=(0.0, 0.0, 90.0)), "no slice of lq and output at a common"),
    ],
)
def test_another_grid_or_unit_is_refused(output, said):
    with pytest.raises(UserError, match=said):
        match_output(volume(), output)
