import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from common import dataset
from common.errors import UserError
from ipv2 import ct_io
from ipv2.datasets.paired_folders import (
    PAIRS,
    PairedFolders,
    paired_folders_config,
    split_sources,
)
from ipv2.datasets.places import Place
from ipv2.datasets.splits import Deal
from tests.ipv2.ct_files import make_series


def write(path, *, count=3, seed=0, start=0.0):
    hu = np.random.default_rng(seed).integers(-1024, 1000, (count, 4, 6))
    volume = ct_io.Volume(
        hu=hu.astype(np.float32),
        spacing_mm=(2.0, 0.7, 0.8),
        origin_mm=(0.0, 0.0, start),
        integer=True,
    )
    ct_io.write_volume(volume, path, overwrite=True)
    return hu


def make_root(root, patients=5, **options):
    """Writes volumes p0/scan.nii ... to lq and gt, and returns {name: (lq, gt)}."""
    return {
        f"p{index}/scan": tuple(
            write(
                root / side / f"p{index}" / "scan.nii", seed=10 * index + s, **options
            )
            for s, side in enumerate(("lq", "gt"))
        )
        for index in range(patients)
    }


def builder_of(tmp_path, **options):
    config = paired_folders_config(tmp_path / "root", **options)
    return PairedFolders(config=config, data_dir=str(tmp_path / "cache"))


def read_pairs(builder):
    """Returns all records."""
    return list(dataset.load_split(builder, PAIRS))


def read_all(builder, **deal):
    """Returns the records of each split."""
    views = split_sources(builder, Deal(**deal))
    return {
        split: [view[index] for index in range(len(view))]
        for split, view in views.items()
    }


def patients_of(records):
    return {record["patient"].decode() for record in records}


def reasons_of(builder, folder):
    """Returns {path below a folder: reason} of everything left out."""
    listed = builder.info.metadata["skipped"]
    return {os.path.relpath(path, folder): reason for path, reason in listed}


def test_records_are_the_files_split_by_patient(tmp_path, capfd):
    truth = make_root(tmp_path / "root")
    builder = builder_of(tmp_path)
    named = {"val_patients": ("p3",), "test_patients": ("p0",)}
    splits = read_all(builder, **named)
    assert {split: len(records) for split, records in splits.items()} == {
        "train": 9,
        "val": 3,
        "test": 3,
    }
    for records in splits.values():
        for number, record in enumerate(records):
            name, index = record["name"].decode(), int(record["slice"])
            assert index == number % 3
            lq, gt = truth[name]
            np.testing.assert_array_equal(record["lq"], lq[index])
            np.testing.assert_array_equal(record["gt"], gt[index])
            assert record["lq"].dtype == np.int16
            np.testing.assert_array_equal(record["spacing_mm"], np.float32([0.7, 0.8]))
    assert patients_of(splits["train"]) == {"p1", "p2", "p4"}
    assert patients_of(splits["val"]) == {"p3"}
    assert patients_of(splits["test"]) == {"p0"}
    metadata = builder.info.metadata
    assert metadata["skipped"] == [] and metadata["warnings"] == []
    assert [Place(*place) for place in metadata["places"][PAIRS]] == [
        Place(f"p{i}", f"p{i}/scan", 3 * i, 3 * i + 3, 4, 6, True) for i in range(5)
    ]
    assert capfd.readouterr().out == ""


def test_a_new_deal_needs_no_new_build(tmp_path, monkeypatch):
    make_root(tmp_path / "root")
    builder = builder_of(tmp_path)
    dataset.prepare(builder)
    monkeypatch.setattr(PairedFolders, "download_and_prepare", None)
    dealt = [
        {split: patients_of(of) for split, of in read_all(builder, **deal).items()}
        for deal in ({}, {"seed": 1}, {"fractions": (0.0, 0.0, 1.0)})
    ]
    assert dealt[0] != dealt[1]
    assert dealt[2] == {
        "train": set(),
        "val": set(),
        "test": {f"p{i}" for i in range(5)},
    }
    for split in dealt:
        assert sorted(itertools.chain.from_iterable(split.values())) == [
            f"p{i}" for i in range(5)
        ]


def test_slices_without_a_partner_are_left_out_and_recorded(tmp_path):
    root = tmp_path / "root"
    lq = make_series(root / "lq" / "a", 4, start=0.0, patient="")
    gt = make_series(root / "gt" / "a", 5, start=-2.5, patient="")
    builder = builder_of(tmp_path)
    records = read_pairs(builder)
    np.testing.assert_array_equal([r["lq"] for r in records], lq)
    np.testing.assert_array_equal([r["gt"] for r in records], gt[1:])
    assert builder.info.metadata["left_out"] == {
        "a": "1 of 5 gt slices (IM005 at -2.5 mm) without a partner"
    }
    by_index = read_pairs(builder_of(tmp_path, match="index"))
    np.testing.assert_array_equal([r["gt"] for r in by_index], gt[:4])


def test_bad_items_are_skipped_counted_and_listed(tmp_path, caplog):
    make_root(tmp_path / "root")
    (tmp_path / "root" / "gt" / "p1" / "scan.nii").write_bytes(b"broken" * 100)
    write(tmp_path / "root" / "lq" / "p7.nii")
    write(tmp_path / "root" / "lq" / "p3" / "other.nii", start=900.0)
    write(tmp_path / "root" / "gt" / "p3" / "other.nii")
    builder = builder_of(tmp_path)
    assert len(read_pairs(builder)) == 12
    assert builder.info.metadata["unusable"] == ["p1"]
    reread = builder_of(tmp_path)
    for one in (builder, reread):
        reasons = reasons_of(one, tmp_path)
        assert sorted(reasons) == [
            "root/gt/p1/scan.nii",
            "root/lq/p3/other.nii",
            "root/lq/p7.nii",
        ]
        assert "not NIfTI" in reasons["root/gt/p1/scan.nii"]
        assert "common position" in reasons["root/lq/p3/other.nii"]
        assert "lq without gt" in reasons["root/lq/p7.nii"]
    assert "3 skipped:" in caplog.text and "scan.nii" in caplog.text


def write_pair(root, name, lq, gt, **options):
    """Writes a pair of HU arrays as NIfTI."""
    for side, hu in (("lq", lq), ("gt", gt)):
        volume = ct_io.Volume(
            **{"hu": hu.astype(np.float32), "spacing_mm": (1.0, 0.76, 0.76)} | options
        )
        ct_io.write_volume(volume, root / side / name / "scan.nii.gz", overwrite=True)


@pytest.mark.slow
def test_bad_pairs_of_every_kind_are_left_out_and_good_ones_are_used(tmp_path):
    """Each bad pair gives one line; the good pairs are in the dataset."""
    root, rng = tmp_path / "root", np.random.default_rng(0)
    gt = rng.integers(-1000, 1000, (4, 20, 20)).astype(np.float32)
    lq = gt + np.rint(rng.normal(0, 40, gt.shape)).astype(np.float32)
    for patient in "ABCD":
        write_pair(root, patient, lq, gt)
    write_pair(root, "size", lq[:, :16], gt[:, :16])
    write_pair(root, "half", lq[:, :16], gt[:, :16])
    write_pair(root, "big", lq, np.where(gt > 900, 40000, gt))
    for patient in ("one_side", "trunc", "empty", "junk", "nan"):
        write_pair(root, patient, lq, gt)
    write_pair(root, "flip", lq, gt)
    flipped = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    other = tmp_path / "other"
    write_pair(other, "flip", lq, gt, direction=flipped)
    write_pair(other, "size", lq, gt)
    write_pair(other, "nan", np.where(gt == gt[2, 5, 5], np.nan, lq), gt)
    for name in ("flip", "size", "nan"):
        os.replace(
            other / "lq" / name / "scan.nii.gz", root / "lq" / name / "scan.nii.gz"
        )
    (root / "gt" / "one_side" / "scan.nii.gz").unlink()
    for name, content in (("trunc", None), ("empty", b""), ("junk", b"hello")):
        path = root / "gt" / name / "scan.nii.gz"
        path.write_bytes(path.read_bytes()[:900] if content is None else content)
    builder = builder_of(tmp_path)
    assert patients_of(read_pairs(builder)) == {"A", "B", "C", "D", "half"}
    reasons = " ".join(sorted(reasons_of(builder, root)))
    for name in ("size", "big", "one_side", "trunc", "empty", "junk", "flip", "nan"):
        assert f"{name}/scan.nii.gz" in reasons
    assert len(reasons_of(builder, root)) == 8
    assert "beyond what HU reach" in reasons_of(builder, root)["gt/big/scan.nii.gz"]
    trusting = builder_of(tmp_path, reading=ct_io.ReadOptions(trust_hu=True))
    assert patients_of(read_pairs(trusting)) == {"A", "B", "C", "D", "half"}
    assert "int16" in reasons_of(trusting, root)["lq/big/scan.nii.gz"]


def test_names_pair_by_a_pattern_and_other_files_are_listed_as_unused(tmp_path):
    root = tmp_path / "root"
    for patient in ("L067", "L096"):
        lq = write(root / "lq" / f"quarter_{patient}.nii", seed=1)
        write(root / "gt" / f"full_{patient}.nii", seed=2)
    (root / "gt" / "notes.txt").write_text("seen")
    builder = builder_of(tmp_path, name_pattern="(?:quarter|full)_(.+)")
    records = read_pairs(builder)
    assert patients_of(records) == {"L067", "L096"}
    np.testing.assert_array_equal(records[1]["lq"], lq[1])
    metadata = builder_of(tmp_path, name_pattern="(?:quarter|full)_(.+)").info.metadata
    assert metadata["skipped"] == []
    ((path, _),) = metadata["unused"]
    assert path.endswith("notes.txt")


def test_without_a_damaged_test_patient_another_one_is_held_out(tmp_path):
    make_root(tmp_path / "root", 4)
    whole = read_all(builder_of(tmp_path))
    (held_out,) = patients_of(whole["test"])
    (tmp_path / "root" / "lq" / held_out / "scan.nii").write_bytes(b"x")
    splits = read_all(builder_of(tmp_path))
    assert len(splits["train"]) and len(splits["val"])
    assert sum(len(records) for records in splits.values()) == 9


def test_a_folder_of_bad_pairs_only_fails_with_their_reasons(tmp_path):
    make_root(tmp_path / "root", 3)
    for index in range(3):
        (tmp_path / "root" / "gt" / f"p{index}" / "scan.nii").write_bytes(b"x")
    builder = builder_of(tmp_path)
    with pytest.raises(UserError, match=r"(?s)no pair can be used.*p2/scan\.nii"):
        dataset.prepare(builder)
    assert not dataset.is_prepared(builder)


def test_unknown_spacing_is_kept_as_unknown(tmp_path):
    for side in ("lq", "gt"):
        (tmp_path / "root" / side).mkdir(parents=True)
        PIL.Image.new("L", (6, 4), 9).save(tmp_path / "root" / side / "p1_1.png")
    builder = builder_of(tmp_path, reading=ct_io.ReadOptions(window=(127.5, 255.0)))
    (record,) = read_pairs(builder)
    assert np.isnan(record["spacing_mm"]).all()
    (place,) = builder.info.metadata["places"][PAIRS]
    assert place == ["p1", "p1_1", 0, 1, 4, 6, False]


def test_changed_files_are_built_again_and_unchanged_ones_are_not(tmp_path):
    make_root(tmp_path / "root")
    first = builder_of(tmp_path)
    dataset.prepare(first)
    assert dataset.is_prepared(builder_of(tmp_path))
    assert builder_of(tmp_path).data_dir == first.data_dir
    new = write(tmp_path / "root" / "lq" / "p2" / "scan.nii", seed=99)
    second = builder_of(tmp_path)
    assert not dataset.is_prepared(second)
    records = read_pairs(second)
    got = [r["lq"] for r in records if r["patient"] == b"p2"]
    np.testing.assert_array_equal(got, new)


def test_each_option_has_its_own_dataset(tmp_path):
    make_root(tmp_path / "root", 3)
    names = [
        builder_of(tmp_path, **options).data_dir
        for options in (
            {},
            {"match": "index"},
            {"name_pattern": "(.+)"},
            {"reading": ct_io.ReadOptions(window=(0.0, 1.0))},
            {"reading": ct_io.ReadOptions(series="lung")},
        )
    ]
    assert len(set(names)) == len(names)


def test_files_that_change_during_the_build_stop_it(tmp_path):
    make_root(tmp_path / "root")
    builder = builder_of(tmp_path)
    write(tmp_path / "root" / "lq" / "p2" / "scan.nii", seed=99)
    with pytest.raises(UserError, match="files changed while"):
        dataset.prepare(builder)
    assert not dataset.is_prepared(builder)


def test_two_patients_need_two_splits_or_a_split_by_slices(tmp_path, caplog):
    make_root(tmp_path / "root", 2, count=10)
    builder = builder_of(tmp_path)
    with pytest.raises(UserError, match=r"2 patient\(s\) \(p0, p1\) for 3 splits"):
        read_all(builder)
    # The hash of seed 0 puts both into test; train takes the nearer one.
    lent = read_all(builder, fractions=(0.5, 0.0, 0.5))
    assert [len(lent[split]) for split in ("train", "val", "test")] == [10, 0, 10]
    assert "train would be empty and takes patient 'p0'" in caplog.text
    two = read_all(builder, seed=1, fractions=(0.5, 0.0, 0.5))
    assert {split: len(records) for split, records in two.items()} == {
        "train": 10,
        "val": 0,
        "test": 10,
    }
    splits = read_all(builder, by="slice")
    where = {
        split: [(r["patient"].decode(), int(r["slice"])) for r in records]
        for split, records in splits.items()
    }
    assert where == {
        "train": [(p, i) for p in ("p0", "p1") for i in range(8)],
        "val": [(p, 8) for p in ("p0", "p1")],
        "test": [(p, 9) for p in ("p0", "p1")],
    }
    assert "too good for new patients" in caplog.text


def test_by_slice_cuts_through_single_slice_files(tmp_path):
    for side in ("lq", "gt"):
        for index in range(10):
            path = tmp_path / "root" / side / f"p1_{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("L", (6, 4), index).save(path)
    builder = builder_of(tmp_path, reading=ct_io.ReadOptions(window=(127.5, 255.0)))
    splits = read_all(builder, by="slice")
    got = {split: [int(r["slice"]) for r in splits[split]] for split in splits}
    assert got == {"train": list(range(8)), "val": [8], "test": [9]}
    assert all(np.all(r["lq"] == r["slice"]) for r in splits["train"])


def test_png_without_a_window_are_refused_in_one_line(tmp_path):
    for side in ("lq", "gt"):
        (tmp_path / "root" / side).mkdir(parents=True)
        for index in range(5):
            path = tmp_path / "root" / side / f"p1_{index}.png"
            PIL.Image.new("L", (6, 4)).save(path)
    with pytest.raises(
        UserError, match=r"p1_0\.png and 4 more: a PNG has no HU\. State the window"
    ) as error:
        dataset.prepare(builder_of(tmp_path))
    assert str(error.value).count("config.data.window") == 1


def test_a_stray_png_is_left_out(tmp_path):
    make_root(tmp_path / "root", 2)
    for side in ("lq", "gt"):
        PIL.Image.new("L", (6, 4)).save(tmp_path / "root" / side / "p9.png")
    builder = builder_of(tmp_path)
    assert patients_of(read_pairs(builder)) == {"p0", "p1"}
    assert "State the window" in reasons_of(builder, tmp_path / "root")["lq/p9.png"]


@pytest.mark.slow
def test_an_unknown_match_is_refused_without_runtime_type_checks(tmp_path):
    make_root(tmp_path / "root", 1)
    code = (
        "from ipv2.datasets.paired_folders import paired_folders_config\n"
        "from common.errors import UserError\n"
        f"try: paired_folders_config({str(tmp_path / 'root')!r}, match='name')\n"
        "except UserError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "'position' or 'index'" in done.stdout


def test_the_message_of_a_missing_folder_states_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"lq: no such folder\. Expected: root/lq"):
        paired_folders_config(tmp_path)


def test_builder_and_source_can_be_pickled_for_worker_processes(tmp_path):
    make_root(tmp_path / "root")
    builder = builder_of(tmp_path)
    source = split_sources(builder, Deal())["train"]
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[2]["lq"], source[2]["lq"])


@pytest.mark.slow
def test_tensorflow_is_never_imported_and_nothing_is_printed(tmp_path):
    make_root(tmp_path / "root", 3)
    code = (
        "import sys\n"
        "from common import dataset\n"
        "from ipv2.datasets import paired_folders, sample_ct\n"
        "from ipv2.datasets.splits import Deal\n"
        f"root, cache = {str(tmp_path / 'root')!r}, {str(tmp_path / 'cache')!r}\n"
        "config = paired_folders.paired_folders_config(root)\n"
        "builder = paired_folders.PairedFolders(config=config, data_dir=cache)\n"
        "assert len(dataset.load_split(builder, 'pairs')) == 9\n"
        "paired_folders.split_sources(builder, Deal())['val'][0]\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"http_proxy": "http://127.0.0.1:9", "HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
