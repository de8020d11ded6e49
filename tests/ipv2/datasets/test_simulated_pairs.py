"""Simulated pairs: schema, unchanged truth, moved partner, splits that do not leak."""

import os

import numpy as np
import PIL.Image
import pytest

from common.dataset import load_split
from common.errors import UserError
from ipv2 import ct_io, phantom
from ipv2.datasets import breath
from ipv2.datasets.pair_builder import options_of
from ipv2.datasets.simulated_pairs import (
    SAMPLE_CT,
    SimulatedPairs,
    SimulatedPairsConfig,
    fingerprint,
    runs,
    simulated_pairs_config,
    slabs,
)
from ipv2.datasets.splits import Deal
from ipv2.kernels.photon_noise import DoseParams

SIZE = 64
MM = 400 / SIZE


def write_chest(path, seed=0, count=12, **options):
    """Writes a phantom's chest, or the values `hu` if given, and returns its HU."""
    patient = phantom.create_patient(seed)
    position = phantom.slice_positions(patient, count)
    slices = phantom.render(
        patient, phantom.create_breaths(seed)[0], position, size=SIZE
    )
    volume = ct_io.Volume(
        **{
            "hu": np.round(np.asarray(slices.hu)),
            "spacing_mm": (10.0, MM, MM),
            "integer": True,
        }
        | options
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    ct_io.write_volume(volume, path, overwrite=True)
    return volume.hu


def build(tmp_path, source, **options):
    config = simulated_pairs_config(source, **options)
    return SimulatedPairs(config=config, data_dir=str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    hu = write_chest(folder / "chest.nii")
    builder = build(
        folder, folder / "chest.nii", deal=Deal(fractions=(0.5, 0.25, 0.25))
    )
    records = {
        split: list(load_split(builder, split)) for split in ("train", "val", "test")
    }
    return hu, builder, records


@pytest.mark.slow
def test_one_patient_is_split_into_slabs_with_gaps_and_a_warning(single):
    _, builder, records = single
    index = {split: [int(r["slice"]) for r in part] for split, part in records.items()}
    assert index == {"train": [0, 1, 2, 3], "val": [6, 7], "test": [10, 11]}
    assert "same chest" in builder.info.metadata["warnings"][0]


@pytest.mark.slow
def test_truth_is_the_unchanged_slice_and_lq_adds_noise(single):
    hu, _, records = single
    for record in records["train"] + records["test"]:
        slice_hu = hu[int(record["slice"])]
        np.testing.assert_array_equal(record["truth"], slice_hu)
        body = breath.body_mask(slice_hu, (MM, MM))
        added = (record["lq"] - slice_hu)[body]
        assert 10 < added.std() < 200 and abs(added.mean()) < 10


@pytest.mark.slow
def test_gt_is_moved_by_millimetres_inside_and_not_at_the_table(single):
    hu, _, records = single
    record = records["train"][3]
    truth, gt = (record[key].astype(np.float64) for key in ("truth", "gt"))
    body = breath.body_mask(hu[3], (MM, MM))
    assert np.abs(gt - truth)[body].mean() > 40
    bottom = np.nonzero(body.any(1))[0][-1] + 3
    assert np.abs(gt - truth)[bottom:].max() < 60


@pytest.mark.slow
def test_noise_of_a_slice_does_not_depend_on_the_other_slices(single, tmp_path):
    _, builder, records = single
    source = builder.builder_config.source
    other = build(tmp_path, source, slices=(2, 5), deal=Deal(fractions=(1.0, 0.0, 0.0)))
    again = list(load_split(other, "train"))
    assert [int(r["slice"]) for r in again] == [2, 3, 4]
    for key in ("lq", "gt", "truth"):
        # 1 HU: float32 sums in another order, then rounded.
        difference = again[0][key].astype(int) - records["train"][2][key]
        assert np.abs(difference).max() <= 1, key


@pytest.mark.slow
def test_patients_are_kept_apart_and_bad_volumes_are_listed(tmp_path):
    root = tmp_path / "scans"
    for index in range(3):
        write_chest(root / f"p{index}" / "scan.nii", seed=index, count=2)
    write_chest(
        root / "p3" / "sagittal.nii",
        count=2,
        direction=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    )
    write_chest(root / "p0" / "oblong.nii", count=2, spacing_mm=(5.0, 3.0, 4.0))
    builder = build(tmp_path, root)
    patients = [
        {record["patient"].decode() for record in load_split(builder, split)}
        for split in ("train", "val", "test")
    ]
    assert set.union(*patients) == {"p0", "p1", "p2"}
    assert [len(group) for group in patients] == [1, 1, 1]
    assert builder.info.metadata["warnings"] == []
    reasons = " ".join(reason for _, reason in builder.info.metadata["skipped"])
    assert "square pixels" in reasons and "not axial" in reasons


def test_a_data_set_without_a_bowtie_filter_keeps_its_fingerprint():
    config = SimulatedPairsConfig(name="x", source=SAMPLE_CT)
    assert "bowtie_mm" not in options_of(config)["noise"]
    noise = DoseParams(dose=0.02, bowtie_mm=90.0)
    other = SimulatedPairsConfig(name="x", source=SAMPLE_CT, noise=noise)
    assert options_of(other)["noise"]["bowtie_mm"] == 90.0
    assert fingerprint(other) != fingerprint(config)


@pytest.mark.slow
def test_the_noise_model_includes_the_reconstruction_filter(single, tmp_path):
    _, builder, records = single
    source = builder.builder_config.source
    noise = DoseParams(dose=0.02, cutoff=0.5)
    soft = build(
        tmp_path,
        source,
        slices=(0, 2),
        noise=noise,
        deal=Deal(fractions=(1.0, 0.0, 0.0)),
    )
    (first, *_), (sharp, *_) = list(load_split(soft, "train")), records["train"]
    body = breath.body_mask(first["truth"], (MM, MM))
    softened, noisy = (
        (r["lq"].astype(int) - r["truth"])[body].std() for r in (first, sharp)
    )
    # A ramp to half the bandwidth passes 1/8 of the variance; the windows add to that.
    assert softened < 0.5 * noisy


@pytest.mark.slow
def test_through_slices_takes_the_partner_from_another_slice(tmp_path):
    hu = write_chest(tmp_path / "chest.nii", count=4)
    builder = build(
        tmp_path,
        tmp_path / "chest.nii",
        through_slices=1,
        chest_mm=0,
        lung_mm=0,
        deal=Deal(fractions=(1.0, 0.0, 0.0)),
    )
    records = list(load_split(builder, "train"))
    assert [int(r["slice"]) for r in records] == [0, 1, 2]
    # 1 HU: splines reproduce their samples up to rounding.
    assert np.abs(records[1]["gt"] - hu[2]).max() <= 1


@pytest.mark.slow
def test_the_configuration_s_name_depends_on_files_and_noise(tmp_path):
    write_chest(tmp_path / "chest.nii", count=2)
    first = simulated_pairs_config(tmp_path / "chest.nii").name
    assert simulated_pairs_config(tmp_path / "chest.nii").name == first
    changed = [
        {"dose": 0.1},
        {"photons": 2e5},
        {"electronic_variance": 0.0},
        {"views": 64},
        {"filter_name": "ramp"},
        {"cutoff": 0.5},
        {"input_dose": 0.5},
    ]
    names = {
        simulated_pairs_config(
            tmp_path / "chest.nii", noise=DoseParams(**{"dose": 0.02} | options)
        ).name
        for options in changed
    }
    assert len(names - {first}) == len(changed)
    write_chest(tmp_path / "chest.nii", count=3)
    assert simulated_pairs_config(tmp_path / "chest.nii").name != first


def test_the_configuration_s_name_depends_on_data_files_and_linked_files(tmp_path):
    write_chest(tmp_path / "real" / "chest.mhd", count=2)
    (data,) = [p for p in (tmp_path / "real").iterdir() if p.suffix != ".mhd"]
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "p1").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "scans")
    sources = (tmp_path / "real" / "chest.mhd", tmp_path / "scans")
    before = [simulated_pairs_config(source).name for source in sources]
    assert [simulated_pairs_config(source).name for source in sources] == before
    os.utime(data, (0, 0))
    after = [simulated_pairs_config(source).name for source in sources]
    assert all(a != b for a, b in zip(after, before, strict=True))


@pytest.mark.slow
def test_files_that_change_during_the_build_stop_it(tmp_path):
    write_chest(tmp_path / "chest.nii", count=2)
    builder = build(
        tmp_path, tmp_path / "chest.nii", deal=Deal(fractions=(1.0, 0.0, 0.0))
    )
    write_chest(tmp_path / "chest.nii", count=3)
    with pytest.raises(UserError, match="files changed while"):
        load_split(builder, "train")


@pytest.mark.parametrize(
    ("count", "fractions", "gap", "expected"),
    [
        (10, (0.8, 0.1, 0.1), 0, [(0, 8), (8, 9), (9, 10)]),
        (10, (0.8, 0.1, 0.1), 1, [(0, 6), (7, 8), (9, 10)]),
        (5, (0.5, 0.0, 0.5), 1, [(0, 2), (3, 5)]),
        (3, (1.0, 0.0, 0.0), 5, [(0, 3)]),
    ],
)
def test_slabs_cover_the_slices(count, fractions, gap, expected):
    result = slabs(count, fractions, gap)
    assert [(part.start, part.stop) for part in result.values()] == expected


def test_named_slices_are_held_out_with_gaps_around_them():
    found = runs(range(2, 20), {"val": (6,), "test": (12, 11, 17)}, 1)
    assert found == {
        "train": [range(2, 5), range(8, 10), range(14, 16), range(19, 20)],
        "val": [range(6, 7)],
        "test": [range(11, 13), range(17, 18)],
    }
    assert runs(range(4), {"val": (), "test": (3,)}, 0) == {
        "train": [range(3)],
        "test": [range(3, 4)],
    }
    with pytest.raises(UserError, match=r"got \[20\], accepted: 2 to 19"):
        runs(range(2, 20), {"test": (20,)}, 1)
    with pytest.raises(UserError, match="none is left for training"):
        runs(range(2, 5), {"test": (3,)}, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_slices": (3,), "test_slices": (2, 3)}, r"\[3\] are in both"),
        ({"slices": (4, 2)}, "first < end"),
        ({"gap_slices": -1}, "gap_slices = -1"),
        ({"lung_mm": 99}, "lung_mm = 99"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        simulated_pairs_config("sample_ct", **options)


@pytest.mark.slow
def test_volumes_that_cannot_be_stored_or_simulated_are_left_out(tmp_path):
    root = tmp_path / "scans"
    hu = write_chest(root / "p0" / "scan.nii", count=2)
    beyond = np.where(hu > 100, np.float32(40000), hu)
    write_chest(root / "p1" / "scan.mha", hu=beyond, count=2, integer=False)
    # The values fit int16, but the splines of the other breath exceed it.
    stripes = np.arange(SIZE) // 4 % 2 == 0
    edges = np.where((hu > -500) & stripes, np.float32(32700), hu)
    write_chest(root / "p2" / "scan.mha", hu=edges, count=2, integer=False)
    (root / "p3").mkdir()
    PIL.Image.new("L", (SIZE, SIZE), 99).save(root / "p3" / "scan.png")
    builder = build(
        tmp_path,
        root,
        reading=ct_io.ReadOptions(window=(-600.0, 1500.0), trust_hu=True),
        deal=Deal(fractions=(0.0, 0.0, 1.0)),
    )
    records = list(load_split(builder, "test"))
    assert {record["patient"] for record in records} == {b"p0"}
    reasons = {p.split("/")[-2]: r for p, r in builder.info.metadata["skipped"]}
    assert "int16" in reasons["p1"] and "int16" in reasons["p2"]
    assert "config.data.pixel_mm" in reasons["p3"]


@pytest.mark.slow
def test_named_patients_are_held_out_and_slices_can_be_split(tmp_path):
    root = tmp_path / "scans"
    for index in range(2):
        write_chest(root / f"p{index}" / "scan.nii", seed=index, count=6)
    named = build(tmp_path, root, deal=Deal(test_patients=("p0",)))
    got = {
        split: {record["patient"] for record in load_split(named, split)}
        for split in ("train", "test")
    }
    assert got == {"train": {b"p1"}, "test": {b"p0"}}
    shares = (0.5, 0.0, 0.5)
    sliced = build(
        tmp_path, root, gap_slices=0, deal=Deal(by="slice", fractions=shares)
    )
    for split, slices in (("train", [0, 1, 2]), ("test", [3, 4, 5])):
        records = list(load_split(sliced, split))
        for patient in (b"p0", b"p1"):
            own = [int(r["slice"]) for r in records if r["patient"] == patient]
            assert own == slices
    assert "same chest" in sliced.info.metadata["warnings"][0]


def test_bad_sources_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        simulated_pairs_config(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no CT volume found"):
        load_split(build(tmp_path, tmp_path / "empty"), "train")
    with pytest.raises(UserError, match="3 slices of one patient for 3 splits"):
        slabs(3, (0.8, 0.1, 0.1), 2)
