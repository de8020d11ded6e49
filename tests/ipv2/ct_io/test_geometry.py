"""Geometry is written with the exact text of the input; unknown geometry is not."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataelem import DataElement

from common.errors import UserError
from ipv2 import ct_io
from tests.ipv2.ct_files import make_series, make_slice, save, stored_slice

PLAIN = ct_io.ReadOptions()
GEOMETRY = (
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation"),
    *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
)


def text(data, keyword):
    """Returns an element's bytes in its file; None without it."""
    if keyword not in data:
        return None
    return data.get_item(pydicom.datadict.tag_for_keyword(keyword)).value


def make_at(folder, positions, **changes):
    """Writes slices at given positions; returns {name: dataset}."""
    for index, position in enumerate(positions):
        data = make_slice(stored_slice(index), instance=index + 1)
        for keyword, value in {"ImagePositionPatient": position, **changes}.items():
            vr = pydicom.datadict.dictionary_VR(keyword)
            if value is None:
                del data[keyword]
            else:
                value = value if isinstance(value, list) else [value]
                element = DataElement(
                    keyword, vr, "\\".join(value), already_converted=True
                )
                data[element.tag] = element
        save(data, folder / f"{index}.dcm")


def copied(folder, options=PLAIN):
    """Reads and writes a series; returns (before, after) of each slice."""
    volume = ct_io.read_volume(folder, options)
    out = ct_io.write_volume(volume, folder.parent / "out")
    return volume, [
        (pydicom.dcmread(folder / path.name), pydicom.dcmread(out / path.name))
        for path in volume.paths
    ]


@pytest.mark.parametrize(
    ("z", "uneven"),
    [
        # Of a real, sparse series.
        (["-98.9", "-168.9", "-232.9", "-318.9"], "steps from 64.00 to 86.00 mm"),
        (["0", "10.0", "22.50", "30"], "steps from 7.50 to 12.50 mm"),
        (["-0.1", "+0.5", "1.1e0", "1.7"], ""),  # as scanners write numbers
    ],
)
def test_slices_keep_their_places_to_the_text(tmp_path, z, uneven):
    make_at(tmp_path / "s", [["-5.0", "7.00", one] for one in z], SliceLocation="98.9")
    volume, pairs = copied(tmp_path / "s")
    assert uneven in volume.uneven and bool(uneven) == bool(volume.uneven)
    for was, now in pairs:
        for keyword in GEOMETRY:
            assert text(now, keyword) == text(was, keyword), keyword


def test_a_drift_in_the_plane_and_the_sign_of_slice_location_stay(tmp_path):
    make_at(
        tmp_path / "s",
        [[f"{0.14 * index:.2f}", "7", str(index)] for index in range(6)],
        SliceLocation="-3.5",
    )
    _, pairs = copied(tmp_path / "s")
    for was, now in pairs:
        for keyword in GEOMETRY:
            assert text(now, keyword) == text(was, keyword), keyword


def test_a_tilt_within_a_pixel_stays(tmp_path):
    orientation = ["1", "0", "0", "0", "0.998630", "-0.052336"]  # 3 degrees
    make_at(
        tmp_path / "s",
        [["0", "0", str(index)] for index in range(6)],
        ImageOrientationPatient=orientation,
    )
    volume, pairs = copied(tmp_path / "s")
    for was, now in pairs:
        for keyword in GEOMETRY:
            assert text(now, keyword) == text(was, keyword), keyword
    np.testing.assert_allclose(volume.position_mm(5), (0, 0, 5))


def test_gaps_are_refused_in_mm_or_allowed(tmp_path):
    make_at(tmp_path / "s", [["0", "0", z] for z in ("0", "1", "2", "3.4", "9")])
    with pytest.raises(UserError, match=r"3\.dcm \(3\.40 mm\) and 4\.dcm .*5\.60 mm"):
        ct_io.read_volume(tmp_path / "s")
    with pytest.raises(UserError, match=r"accepted are 0\.75 to 1\.25 times .*allow"):
        ct_io.read_volume(tmp_path / "s")
    volume, pairs = copied(tmp_path / "s", ct_io.ReadOptions(gaps="allow"))
    assert "missing" in volume.uneven
    assert [float(now.ImagePositionPatient[2]) for _, now in pairs] == [0, 1, 2, 3.4, 9]


def test_a_sheared_stack_is_allowed_slice_by_slice(tmp_path):
    make_at(tmp_path / "s", [[str(index), "0", str(index)] for index in range(4)])
    with pytest.raises(UserError, match=r"sheared.*3\.0 mm beside"):
        ct_io.read_volume(tmp_path / "s")
    volume, _ = copied(tmp_path / "s", ct_io.ReadOptions(gaps="allow"))
    np.testing.assert_allclose(volume.position_mm(3), (3, 0, 3))


@pytest.mark.parametrize("spacing", [None, "", "0\\0", "N/A", "0.7x\\0.7", "-1\\-1"])
def test_spacing_that_is_not_stated_is_neither_known_nor_written(tmp_path, spacing):
    changes = {"PixelSpacing": spacing, "ImagerPixelSpacing": "0.5\\0.5"}
    make_at(tmp_path / "s", [["0", "0", str(i)] for i in range(3)], **changes)
    volume, pairs = copied(tmp_path / "s")
    assert not volume.spacing_known
    assert all("PixelSpacing" not in now for _, now in pairs)
    given = ct_io.read_volume(tmp_path / "s", ct_io.ReadOptions(pixel_mm=0.75))
    assert given.spacing_known and given.spacing_mm == (1.0, 0.75, 0.75)


def test_what_a_file_states_counts_more_than_the_option(tmp_path):
    make_series(tmp_path / "s", 3)
    volume = ct_io.read_volume(tmp_path / "s", ct_io.ReadOptions(pixel_mm=0.5))
    assert volume.spacing_mm[1:] == (0.7, 0.8)


@pytest.mark.parametrize(
    "orientation", [None, "1\\0\\0\\0.5\\1\\0", "0\\0\\0\\0\\0\\0", "1\\0\\0"]
)
def test_orientation_is_not_made_up(tmp_path, orientation):
    make_at(
        tmp_path / "s",
        [["0", "0", str(i)] for i in range(3)],
        ImageOrientationPatient=orientation,
        SliceThickness=None,
    )
    _, pairs = copied(tmp_path / "s")
    for was, now in pairs:
        for keyword in GEOMETRY:
            assert text(now, keyword) == text(was, keyword), keyword


def test_slices_without_positions_are_refused_but_for_one(tmp_path):
    make_at(tmp_path / "s", [None, None], SliceLocation="3")
    with pytest.raises(UserError, match=r"0\.dcm: states no ImagePositionPatient"):
        ct_io.read_volume(tmp_path / "s")
    make_at(tmp_path / "t", [None])
    volume, ((_, now),) = copied(tmp_path / "t")
    assert not volume.positions_known
    assert "ImagePositionPatient" not in now and "SliceLocation" not in now


@pytest.mark.parametrize("thickness", ["-5", "0", "", None])
def test_a_thickness_that_is_none_does_no_harm(tmp_path, thickness):
    make_at(
        tmp_path / "s",
        [["0", "0", "1"]],
        SliceThickness=thickness,
        SpacingBetweenSlices="-1",
    )
    _, ((was, now),) = copied(tmp_path / "s")
    assert text(now, "SliceThickness") == text(was, "SliceThickness")


@pytest.mark.parametrize("name", ["a.mhd", "a.mha", "a.nrrd", "a.nii", "a.nii.gz"])
def test_images_without_spacing_stay_without(tmp_path, name):
    hu = stored_slice(1)[None] - 1024.0
    volume = ct_io.Volume(
        hu=hu.astype(np.float32),
        spacing_mm=(1.0, 1.0, 1.0),
        spacing_known=False,
        spacing_stated=False,
        integer=True,
    )
    path = ct_io.write_volume(volume, tmp_path / name)
    read = ct_io.read_volume(path)
    assert not read.spacing_known and not read.spacing_stated
    np.testing.assert_array_equal(read.hu, hu)
    # SimpleITK, which makes up 1 mm, reads the same values.
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(path)).squeeze(), hu.squeeze()
    )
    given = ct_io.read_volume(path, ct_io.ReadOptions(pixel_mm=0.8))
    assert given.spacing_mm[1:] == (0.8, 0.8)
    again = ct_io.write_volume(given, tmp_path / f"b{name[1:]}")
    assert not ct_io.read_volume(again).spacing_known


def test_slices_are_taken_where_they_lie(tmp_path):
    make_series(tmp_path / "s", 5)
    volume = ct_io.read_volume(tmp_path / "s")
    part = volume.take([1, 3, 4])
    np.testing.assert_array_equal(part.hu, volume.hu[[1, 3, 4]])
    np.testing.assert_allclose(part.positions_mm[:, 2], [-97.5, -92.5, -90])
    out = ct_io.write_volume(part, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["IM001", "IM002", "IM004"]
    file = ct_io.read_volume(ct_io.write_volume(volume, tmp_path / "a.nii"))
    np.testing.assert_allclose(file.take([1, 2]).origin_mm[2], -97.5)
    with pytest.raises(UserError, match="not one piece"):
        file.take([1, 3])


def test_a_series_goes_through_one_file_of_frames_and_back(tmp_path):
    make_series(tmp_path / "s", 4, step=1.5)
    volume = ct_io.read_volume(tmp_path / "s")
    out = ct_io.write_volume(volume, tmp_path / "out", multi_frame=True)
    (file,) = out.iterdir()
    frames = pydicom.dcmread(file)
    assert frames.NumberOfFrames == 4
    for read in (ct_io.read_volume(out), ct_io.read_volume(file)):
        np.testing.assert_array_equal(read.hu, volume.hu)
        np.testing.assert_array_equal(read.positions_mm, volume.positions_mm)
        assert read.spacing_mm == volume.spacing_mm
    again = ct_io.write_volume(ct_io.read_volume(out), tmp_path / "again")
    slices = [pydicom.dcmread(path) for path in sorted(again.iterdir())]
    wanted = {
        str(pydicom.dcmread(path).ImagePositionPatient)
        for path in (tmp_path / "s").iterdir()
    }
    assert {str(one.ImagePositionPatient) for one in slices} == wanted
    for one in slices:
        (source,) = one.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == frames.SOPInstanceUID
        number = source.ReferencedFrameNumber
        group = frames.PerFrameFunctionalGroupsSequence[number - 1]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        assert place == one.ImagePositionPatient
