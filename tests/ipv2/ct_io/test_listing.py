import os

import numpy as np
import PIL.Image
import pydicom
import pytest

from common.errors import UserError
from ipv2 import ct_io
from ipv2.ct_io import listing
from tests.ipv2.ct_files import make_series, make_slice, save, stored_slice


def volume_of(count=4, *, size=4, start=0.0, step=2.0, seed=0, **fields):
    hu = np.random.default_rng(seed).integers(-1024, 1000, (count, size, size))
    return ct_io.Volume(
        hu=hu.astype(np.float32),
        spacing_mm=(step, 1.0, 1.0),
        origin_mm=(0.0, 0.0, start),
        integer=True,
        **fields,
    )


def write(path, **fields):
    return ct_io.write_volume(volume_of(**fields), path)


def png(path, value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("L", (4, 4), value).save(path)


def test_volumes_of_all_kinds_are_found(tmp_path):
    for name in ("p1/a.nii.gz", "p1/b.1.mha", "p2/c.mhd", "d.nrrd"):
        write(tmp_path / name)
    png(tmp_path / "p3" / "s_01.png")
    make_series(tmp_path / "p4" / "series")
    make_series(tmp_path / "p5", names=[f"{i}.DCM" for i in range(5)])
    (tmp_path / "readme.txt").write_text("no volume")
    (tmp_path / ".hidden").mkdir()
    png(tmp_path / ".hidden" / "x.png")
    found = {item.name: item.path for item in listing.list_volumes(tmp_path).items}
    want = ["d", "p1/a", "p1/b.1", "p2/c", "p3/s_01", "p4/series", "p5"]
    assert sorted(found) == want
    assert found["p4/series"] == tmp_path / "p4" / "series"
    with pytest.raises(UserError, match="no such folder"):
        listing.list_volumes(tmp_path / "none")


def test_pairs_go_by_name_whatever_the_format_and_the_rest_is_listed(tmp_path):
    write(tmp_path / "lq" / "p1" / "scan.nii.gz")
    write(tmp_path / "gt" / "p1" / "scan.mha")
    make_series(tmp_path / "lq" / "p2" / "x")
    make_series(tmp_path / "gt" / "p2" / "x")
    write(tmp_path / "lq" / "p3.nrrd")
    write(tmp_path / "gt" / "p4.nrrd")
    for side in ("lq", "gt"):
        write(tmp_path / side / "twice.nii")
    write(tmp_path / "gt" / "twice.mha")
    found = listing.paired_paths(tmp_path)
    assert [pair.name for pair in found.pairs] == ["p1/scan", "p2/x"]
    assert found.pairs[0].gt == tmp_path / "gt" / "p1" / "scan.mha"
    reasons = {str(s.path.relative_to(tmp_path)): s.reason for s in found.skipped}
    assert "lq without gt" in reasons["lq/p3.nrrd"]
    assert "gt without lq" in reasons["gt/p4.nrrd"]
    assert "twice.mha, twice.nii" in reasons["gt/twice.mha"]
    assert "twice.mha, twice.nii" in reasons["gt/twice.nii"]
    assert "lq without gt" in reasons["lq/twice.nii"]
    text = listing.describe_skipped(found.skipped)
    assert text.startswith("5 skipped:") and len(text.splitlines()) == 6
    assert listing.describe_skipped([]) == ""


def test_series_right_below_lq_and_gt_are_a_pair(tmp_path):
    make_series(tmp_path / "lq")
    make_series(tmp_path / "gt")
    (pair,) = listing.paired_paths(tmp_path).pairs
    assert (pair.name, pair.lq, pair.gt) == ("", tmp_path / "lq", tmp_path / "gt")


def test_the_message_without_a_pair_states_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"lq: no such folder\. Expected: root/lq"):
        listing.paired_paths(tmp_path)
    (tmp_path / "lq").mkdir()
    with pytest.raises(UserError, match="gt: no such folder"):
        listing.paired_paths(tmp_path)
    write(tmp_path / "lq" / "a.nii")
    write(tmp_path / "gt" / "b.nii")
    with pytest.raises(UserError, match=r"(?s)no pair: 1 .* in lq, 1 in gt.*2 skipped"):
        listing.paired_paths(tmp_path)


@pytest.mark.parametrize("side", ["lq", "gt"])
def test_a_bad_half_of_a_pair_is_skipped(tmp_path, side):
    for name in ("a", "b"):
        write(tmp_path / "lq" / f"{name}.nii")
        write(tmp_path / "gt" / f"{name}.nii")
    (tmp_path / side / "a.nii").write_bytes(b"cut")
    skipped = []
    pairs = listing.paired_paths(tmp_path).pairs
    read = [pair.name for pair, _, _ in listing.read_pairs(pairs, skipped)]
    assert read == ["b"]
    (bad,) = skipped
    assert bad.path == tmp_path / side / "a.nii" and "not NIfTI" in bad.reason
    # The path stands once in a line, not twice.
    assert listing.describe_skipped(skipped).count("a.nii") == 1


def test_patient_is_the_folder_then_the_tag_then_the_name(tmp_path):
    make_series(tmp_path / "p9" / "series", patient="ANON7 ")
    make_series(tmp_path / "p8" / "series", patient="")
    save(make_slice(stored_slice(0), patient=""), tmp_path / "flat" / "L067_0012.dcm")
    write(tmp_path / "p1" / "deep" / "scan.nii")
    write(tmp_path / "case_12.nii")
    for name in ("p3_0001", "p3_0002", "p4-slice 17", "0005", "img_3"):
        png(tmp_path / f"{name}.png")
    got = {
        item.name: ct_io.patient_of(item)
        for item in listing.list_volumes(tmp_path).items
    }
    assert got == {
        "p9/series": "p9",
        "p8/series": "p8",
        "flat": "flat",
        "p1/deep/scan": "p1",
        "case_12": "case_12",
        "p3_0001": "p3",
        "p3_0002": "p3",
        "p4-slice 17": "p4",
        "0005": "one",
        "img_3": "one",
    }


def test_slice_number_is_the_index_or_what_the_name_ends_in():
    assert ct_io.slice_number(volume_of(4), "p/s_0012", 3) == 3
    assert ct_io.slice_number(volume_of(1), "p/s_0012", 0) == 12
    assert ct_io.slice_number(volume_of(1), "p/s", 0) == 0


@pytest.mark.parametrize(
    ("lq", "gt", "by", "pairs", "left"),
    [
        ((4, 0.0), (4, 0.0), "position", [(0, 0), (1, 1), (2, 2), (3, 3)], ""),
        # Table 0.9 mm off, less than half a slice of 2 mm.
        ((3, 0.0), (3, 0.9), "position", [(0, 0), (1, 1), (2, 2)], ""),
        ((4, 0.0), (5, -4.0), "position", [(0, 2), (1, 3), (2, 4)], "1 of 4 lq"),
        ((3, 2.0), (5, 0.0), "position", [(0, 1), (1, 2), (2, 3)], "2 of 5 gt"),
        ((3, 2.0), (5, 0.0), "index", [(0, 0), (1, 1), (2, 2)], "2 of 5 gt"),
        ((3, 0.0), (3, 500.0), "index", [(0, 0), (1, 1), (2, 2)], ""),
    ],
)
def test_slices_of_two_breaths_are_matched(lq, gt, by, pairs, left):
    got, out = ct_io.match_slices(
        volume_of(lq[0], start=lq[1]), volume_of(gt[0], start=gt[1]), by=by
    )
    assert got == pairs
    assert out.startswith(left) and bool(out) == bool(left)


def test_slices_of_two_thicknesses_are_used_once():
    thin, thick = volume_of(9, step=1.0), volume_of(5, step=2.0)
    want = [(2 * index, index) for index in range(5)]
    assert ct_io.match_slices(thin, thick)[0] == want
    assert ct_io.match_slices(thick, thin)[0] == [(j, i) for i, j in want]
    # Halfway between two thin slices: one of them, not both.
    between = volume_of(4, step=2.0, start=0.5)
    assert ct_io.match_slices(thin, between)[0] == [
        (2 * index + 1, index) for index in range(4)
    ]


def test_volumes_without_positions_are_matched_by_index():
    one = volume_of(1, positions_known=False, start=0.0)
    other = volume_of(1, positions_known=False, start=90.0)
    assert ct_io.match_slices(one, other) == ([(0, 0)], "")


@pytest.mark.parametrize(
    ("gt", "text"),
    [
        (volume_of(4, size=5), "pixels"),
        (volume_of(4, start=500.0), "no slice of lq and gt at a common position"),
        # 1.2 mm beyond the last slice, more than half of 2 mm.
        (volume_of(4, start=7.2), "no slice of lq and gt at a common position"),
        (volume_of(4, unit="grey"), "gt grey"),
        (
            volume_of(4, direction=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)),
            "orientation",
        ),
        (
            ct_io.Volume(
                hu=np.zeros((4, 4, 4), np.float32), spacing_mm=(2.0, 1.1, 1.0)
            ),
            "pixel spacing",
        ),
    ],
)
def test_grids_that_do_not_fit_are_refused(gt, text):
    with pytest.raises(UserError, match=text):
        ct_io.match_slices(volume_of(4), gt)


def test_slices_are_counted_without_reading_them(tmp_path):
    write(tmp_path / "a.nii.gz", count=4)
    png(tmp_path / "b.png")
    make_series(tmp_path / "series", 5)
    write(tmp_path / "series" / "inner.nii")
    save(make_slice(stored_slice(0)), tmp_path / "single" / "x.dcm")
    (tmp_path / "bad.mha").write_bytes(b"nothing")
    counts = {
        item.name: listing.count_slices(item)
        for item in listing.list_volumes(tmp_path).items
    }
    assert counts == {
        **{"a": 4, "b": 1, "bad": 0, "series": 5, "single": 1},
        "series/inner": 4,
    }
    file = listing.Item(name="x", path=tmp_path / "single" / "x.dcm")
    assert listing.count_slices(file) == 1


def reasons(root, found):
    return {one.path.relative_to(root).as_posix(): one.reason for one in found.unused}


def test_every_file_is_a_volume_or_not_used_for_a_reason(tmp_path):
    make_series(tmp_path / "p1", 3, names=["1.dcm", "2.dcm", "3.dcm"])
    write(tmp_path / "p2" / "scan.mhd")
    (tmp_path / "p1" / "LICENSE").write_text("free")
    (tmp_path / "p1" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "p1" / "empty.txt").touch()
    (tmp_path / "p2" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "p2" / "other.raw").write_bytes(b"raw")
    os.mkfifo(tmp_path / "p2" / "pipe.nii.gz")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    found = listing.list_volumes(tmp_path)
    assert [item.name for item in found.items] == ["p1", "p2/scan"]
    none = "no CT image by its name or content"
    assert reasons(tmp_path, found) == {
        "DICOMDIR": "a DICOM directory, which lists other files",
        ".cache": "a hidden folder",
        "p1/.DS_Store": "a hidden file",
        "p1/LICENSE": none,
        "p1/empty.txt": "an empty file",
        "p2/gone": "a link to nothing",
        "p2/other.raw": none,
        "p2/pipe.nii.gz": "no regular file",
    }


def test_links_to_folders_are_followed_once(tmp_path):
    make_series(tmp_path / "elsewhere" / "p1", 3)
    root = tmp_path / "root"
    make_series(root / "p2", 3)
    (root / "p1").symlink_to(tmp_path / "elsewhere" / "p1")
    (root / "p2" / "back").symlink_to(root)  # a loop
    found = listing.list_volumes(root)
    assert [item.name for item in found.items] == ["p1", "p2"]
    (reason,) = reasons(root, found).values()
    assert reason == f"a link to {root}, which is listed already"


@pytest.mark.parametrize("name", ["3.dcm", "IM003", "1.2.840.3"])
@pytest.mark.parametrize("content", [b"", b"\0" * 900])
def test_a_damaged_slice_is_never_lost_without_a_word(tmp_path, name, content):
    names = [name.replace("3", str(i)) for i in (1, 2, 3)]
    make_series(tmp_path / "s", 3, names=names)
    (tmp_path / "s" / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: .*Copy the file again"):
        ct_io.read_volume(tmp_path / "s")


@pytest.mark.parametrize("kind", ["implicit", "explicit", "meta"])
def test_files_without_a_preamble_are_read(tmp_path, kind):
    hu = make_series(tmp_path / "s", 3)
    for path in (tmp_path / "s").iterdir():
        content = path.read_bytes()
        if kind == "meta":
            path.write_bytes(content[132:])
            continue
        data = pydicom.dcmread(path)
        del data.file_meta
        data.preamble = None
        data["PixelData"].VR = "OW"
        data.save_as(path, implicit_vr=kind == "implicit", little_endian=True)
    assert listing.list_volumes(tmp_path).unused == ()
    np.testing.assert_array_equal(ct_io.read_volume(tmp_path / "s").hu, hu)


def test_names_pair_by_a_pattern(tmp_path):
    for side, kind in (("lq", "quarter"), ("gt", "full")):
        for patient in ("L067", "L096"):
            write(tmp_path / side / f"{kind}_{patient}.nii")
    write(tmp_path / "lq" / "phantom.nii")
    with pytest.raises(UserError, match=r"config\.data\.name_pattern='"):
        listing.paired_paths(tmp_path)
    found = listing.paired_paths(tmp_path, name_pattern="(?:quarter|full)_(.+)")
    assert [pair.name for pair in found.pairs] == ["L067", "L096"]
    assert found.pairs[0].gt == tmp_path / "gt" / "full_L067.nii"
    (left,) = found.skipped
    assert left.path.name == "phantom.nii" and "name_pattern" in left.reason


def test_one_id_in_all_folders_warns_and_folders_are_patients(tmp_path, caplog):
    by_patient = {}
    for name in ("A", "B"):
        make_series(tmp_path / name / "scan", 2, patient="Anonymous")
    for item in listing.list_volumes(tmp_path).items:
        by_patient.setdefault(ct_io.patient_of(item), []).append(item)
    assert sorted(by_patient) == ["A", "B"]
    ct_io.log_patients(by_patient)
    assert "'Anonymous' is in 2 folders (A, B)" in caplog.text


def test_many_of_one_reason_are_counted(tmp_path):
    many = [ct_io.Skipped(path=tmp_path / f"{i}.txt", reason="no") for i in range(9)]
    one = ct_io.Skipped(path=tmp_path / "a.nii", reason=f"{tmp_path / 'a.nii'}: cut")
    text = listing.describe_skipped([*many, one], word="files not used")
    assert text.splitlines() == [
        "10 files not used:",
        f"  9 times: no: {tmp_path}/0.txt, {tmp_path}/1.txt, {tmp_path}/2.txt, ...",
        f"  {tmp_path}/a.nii: cut",
    ]


@pytest.mark.parametrize("name", ["A.NII", "A.NII.GZ", "A.MHA", "A.MHD", "A.NRRD"])
def test_capitals_are_read_and_written(tmp_path, name):
    write(tmp_path / "a" / name.lower())
    volume = ct_io.read_volume(tmp_path / "a" / name.lower())
    path = ct_io.write_volume(volume, tmp_path / "b" / name)
    assert path.name in {one.name for one in path.parent.iterdir()}
    (item,) = listing.list_volumes(tmp_path / "b").items
    np.testing.assert_array_equal(ct_io.read_volume(item.path).hu, volume.hu)


def test_a_raw_file_beside_a_header_is_never_overwritten(tmp_path):
    write(tmp_path / "scan.mhd")
    volume = ct_io.read_volume(tmp_path / "scan.mhd")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan.raw").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"scan\.raw: exists already"):
        ct_io.write_volume(volume, tmp_path / "out" / "scan.mhd")
    assert (tmp_path / "out" / "scan.raw").read_bytes() == b"mine"
    assert not (tmp_path / "out" / "scan.mhd").exists()
