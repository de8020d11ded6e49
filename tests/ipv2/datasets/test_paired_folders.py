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
from ipv2.datasets.pair_builder import split_patients
from ipv2.datasets.paired_folders import PairedFolders, paired_folders_config
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
    """Volumes p0/scan.nii ... in lq and gt: {name: (lq, gt)}."""
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


def read_all(builder):
    dataset.prepare(builder)
    return {
        split: [
            {key: value for key, value in record.items()}
            for record in dataset.load_split(builder, split)
        ]
        for split in builder.info.splits
    }


def test_records_are_the_files_split_by_patient(tmp_path, capfd):
    truth = make_root(tmp_path / "root")
    builder = builder_of(tmp_path)
    splits = read_all(builder)
    assert {split: len(records) for split, records in splits.items()} == {
        "train": 9,
        "val": 3,
        "test": 3,
    }
    seen = {}
    for split, records in splits.items():
        for number, record in enumerate(records):
            name, index = record["name"].decode(), int(record["slice"])
            assert index == number % 3
            lq, gt = truth[name]
            np.testing.assert_array_equal(record["lq"], lq[index])
            np.testing.assert_array_equal(record["gt"], gt[index])
            assert record["lq"].dtype == np.int16
            np.testing.assert_array_equal(record["spacing_mm"], np.float32([0.7, 0.8]))
            seen.setdefault(record["patient"].decode(), set()).add(split)
    assert sorted(seen) == ["p0", "p1", "p2", "p3", "p4"]
    assert all(len(where) == 1 for where in seen.values())
    metadata = builder.info.metadata
    assert metadata["skipped"] == [] and metadata["warning"] == ""
    assert sorted(
        itertools.chain.from_iterable(metadata["patients"].values())
    ) == sorted(seen)
    assert capfd.readouterr().out == ""


def test_formats_and_breaths_mix_and_what_is_left_out_is_recorded(tmp_path):
    root = tmp_path / "root"
    lq = make_series(root / "lq" / "a", 4, start=0.0, patient="")
    gt = make_series(root / "gt" / "a", 5, start=-2.5, patient="")
    names = {"patients": {"train": ["a"]}}
    builder = builder_of(tmp_path, **names)
    records = read_all(builder)["train"]
    np.testing.assert_array_equal([r["lq"] for r in records], lq)
    np.testing.assert_array_equal([r["gt"] for r in records], gt[1:])
    assert builder.info.metadata["left_out"] == {
        "a": "1 of 5 gt slices (IM005 at -2.5 mm) without a partner"
    }
    by_index = read_all(builder_of(tmp_path, match="index", **names))["train"]
    np.testing.assert_array_equal([r["gt"] for r in by_index], gt[:4])


def test_bad_items_are_skipped_counted_and_listed(tmp_path, caplog):
    make_root(tmp_path / "root")
    (tmp_path / "root" / "gt" / "p1" / "scan.nii").write_bytes(b"broken" * 100)
    write(tmp_path / "root" / "lq" / "p7.nii")
    write(tmp_path / "root" / "lq" / "p3" / "other.nii", start=900.0)
    write(tmp_path / "root" / "gt" / "p3" / "other.nii")
    everyone = {"patients": {"train": [f"p{i}" for i in range(5)]}}
    builder = builder_of(tmp_path, **everyone)
    assert len(read_all(builder)["train"]) == 12
    reread = builder_of(tmp_path, **everyone)
    for metadata in (builder.info.metadata, reread.info.metadata):
        reasons = {os.path.relpath(p, tmp_path): r for p, r in metadata["skipped"]}
        assert sorted(reasons) == [
            "root/gt/p1/scan.nii",
            "root/lq/p3/other.nii",
            "root/lq/p7.nii",
        ]
        assert "not NIfTI" in reasons["root/gt/p1/scan.nii"]
        assert "common position" in reasons["root/lq/p3/other.nii"]
        assert "lq without gt" in reasons["root/lq/p7.nii"]
    assert "3 skipped:" in caplog.text and "scan.nii" in caplog.text


def test_a_split_of_bad_items_only_fails_with_their_reasons(tmp_path):
    make_root(tmp_path / "root", 3)
    for index in range(3):
        (tmp_path / "root" / "gt" / f"p{index}" / "scan.nii").write_bytes(b"x")
    builder = builder_of(tmp_path)
    with pytest.raises(UserError, match=r"(?s)no pair of split .*scan\.nii"):
        dataset.prepare(builder)
    assert not dataset.is_prepared(builder)


def test_changed_files_are_built_again_and_unchanged_ones_are_not(tmp_path):
    make_root(tmp_path / "root")
    first = builder_of(tmp_path)
    dataset.prepare(first)
    assert dataset.is_prepared(builder_of(tmp_path))
    assert builder_of(tmp_path).data_dir == first.data_dir
    new = write(tmp_path / "root" / "lq" / "p2" / "scan.nii", seed=99)
    second = builder_of(tmp_path)
    assert not dataset.is_prepared(second)
    records = list(itertools.chain.from_iterable(read_all(second).values()))
    got = [r["lq"] for r in records if r["patient"] == b"p2"]
    np.testing.assert_array_equal(got, new)


def test_each_option_has_its_own_dataset(tmp_path):
    make_root(tmp_path / "root", 3)
    names = [
        builder_of(tmp_path, **options).data_dir
        for options in (
            {},
            {"seed": 1},
            {"match": "index"},
            {"reading": ct_io.ReadOptions(window=(0.0, 1.0))},
            {"reading": ct_io.ReadOptions(series="lung")},
            {"fractions": (0.5, 0.25, 0.25)},
            {"patients": {"train": ["p0"]}},
            {"by_slice": True},
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


def test_two_patients_need_a_decision(tmp_path):
    make_root(tmp_path / "root", 2, count=10)
    with pytest.raises(
        UserError, match=r"2 patients \(p0, p1\) for 3 splits.*by_slice"
    ):
        dataset.prepare(builder_of(tmp_path))
    two = read_all(builder_of(tmp_path, fractions=(0.5, 0.0, 0.5)))
    assert {split: len(records) for split, records in two.items()} == {
        "train": 10,
        "test": 10,
    }
    leaky = builder_of(tmp_path, by_slice=True)
    splits = read_all(leaky)
    where = {
        split: [(r["patient"].decode(), int(r["slice"])) for r in records]
        for split, records in splits.items()
    }
    assert where == {
        "train": [(p, i) for p in ("p0", "p1") for i in range(8)],
        "val": [(p, 8) for p in ("p0", "p1")],
        "test": [(p, 9) for p in ("p0", "p1")],
    }
    assert "too good for new patients" in leaky.info.metadata["warning"]


def test_by_slice_cuts_through_single_slice_files(tmp_path):
    for side in ("lq", "gt"):
        for index in range(10):
            path = tmp_path / "root" / side / f"p1_{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("L", (6, 4), index).save(path)
    builder = builder_of(
        tmp_path, by_slice=True, reading=ct_io.ReadOptions(window=(127.5, 255.0))
    )
    splits = read_all(builder)
    got = {split: [int(r["slice"]) for r in splits[split]] for split in splits}
    assert got == {"train": list(range(8)), "val": [8], "test": [9]}
    assert all(np.all(r["lq"] == r["slice"]) for r in splits["train"])


def test_png_needs_a_window(tmp_path):
    for side in ("lq", "gt"):
        (tmp_path / "root" / side).mkdir(parents=True)
        PIL.Image.new("L", (6, 4)).save(tmp_path / "root" / side / "p1_1.png")
    with pytest.raises(UserError, match=r"p1_1\.png: a PNG has no HU.*`window`"):
        dataset.prepare(builder_of(tmp_path))


def test_explicit_patients(tmp_path):
    make_root(tmp_path / "root")
    lists = {"train": ["p3", "p0"], "test": ["p1"]}
    builder = builder_of(tmp_path, patients=lists)
    splits = read_all(builder)
    got = {split: {r["patient"].decode() for r in splits[split]} for split in splits}
    assert got == {"train": {"p0", "p3"}, "test": {"p1"}}
    assert len(builder.info.metadata["skipped"]) == 2
    assert "in no split" in builder.info.metadata["skipped"][0][1]
    with pytest.raises(UserError, match=r"no patient \['p9'\]; there are \['p0'"):
        dataset.prepare(builder_of(tmp_path, patients={"train": ["p9"]}))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fractions": (0.5, 0.1, 0.1)}, "add up to 1"),
        ({"fractions": (1.2, -0.1, -0.1)}, "none below 0"),
        ({"match": "name"}, "'position' or 'index'"),
        ({"patients": {"valid": ["p0"]}}, "train, val, test"),
        ({"patients": {"train": ["p0"], "test": ["p0"]}}, r"\['p0'\] twice"),
        ({"patients": {"train": ["p0"]}, "by_slice": True}, "not both"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, text):
    make_root(tmp_path / "root", 1)
    if options.get("match") == "name":
        # The annotation already refuses it where types are executed.
        code = (
            "from ipv2.datasets.paired_folders import paired_folders_config\n"
            "from common.errors import UserError\n"
            f"try: paired_folders_config({str(tmp_path / 'root')!r}, match='name')\n"
            "except UserError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert text in done.stdout
        return
    with pytest.raises(UserError, match=text):
        paired_folders_config(tmp_path / "root", **options)


def test_missing_folder_says_what_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"lq: no such folder\. Expected: root/lq"):
        paired_folders_config(tmp_path)


def test_builder_and_source_can_be_pickled_for_worker_processes(tmp_path):
    make_root(tmp_path / "root")
    builder = builder_of(tmp_path)
    source = dataset.load_split(builder, "train")
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[4]["lq"], source[4]["lq"])


@pytest.mark.parametrize("count", [3, 4, 5, 7, 10, 100])
@pytest.mark.parametrize(
    "fractions", [(0.8, 0.1, 0.1), (0.4, 0.4, 0.2), (0.34, 0.33, 0.33), (0.1, 0.1, 0.8)]
)
def test_every_patient_is_in_one_split_and_none_is_empty(count, fractions):
    patients = [f"p{index}" for index in range(count)]
    splits = split_patients(patients, seed=0, fractions=fractions)
    assert sorted(itertools.chain.from_iterable(splits.values())) == sorted(patients)
    for split, fraction in zip(("train", "val", "test"), fractions, strict=True):
        # One of each is given whatever the fractions; the rest is rounded.
        assert abs(len(splits[split]) - fraction * count) <= 1.5 and splits[split]


def test_the_deal_depends_on_the_seed_not_on_the_order():
    patients = [f"p{index}" for index in range(20)]
    deal = split_patients(patients, seed=0, fractions=(0.5, 0.25, 0.25))
    assert deal == split_patients(patients[::-1], seed=0, fractions=(0.5, 0.25, 0.25))
    assert deal != split_patients(patients, seed=1, fractions=(0.5, 0.25, 0.25))


@pytest.mark.slow
def test_tensorflow_is_never_imported_and_nothing_is_printed(tmp_path):
    make_root(tmp_path / "root", 3)
    code = (
        "import sys\n"
        "from common import dataset\n"
        "from ipv2.datasets import paired_folders, sample_ct\n"
        f"root, cache = {str(tmp_path / 'root')!r}, {str(tmp_path / 'cache')!r}\n"
        "config = paired_folders.paired_folders_config(root)\n"
        "builder = paired_folders.PairedFolders(config=config, data_dir=cache)\n"
        "assert len(dataset.load_split(builder, 'train')) == 3\n"
        "dataset.load_split(builder, 'val')[0]\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"http_proxy": "http://127.0.0.1:9", "HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
