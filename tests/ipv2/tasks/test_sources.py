"""What a run trains and is measured on, from folders as users have them."""

import numpy as np
import pytest

from common.errors import UserError
from common.nested import flatten
from configs import ipv2_redcnn
from ipv2.tasks import train
from ipv2.tasks.sources import fingerprints, open_sources, training_record
from ipv2.training.stacks import Stacks
from tests.ipv2.pair_folders import config_of, write_pairs, write_png
from tests.processes import run_processes

PATIENTS = ("A", "B", "C", "D")


def patients_of(source):
    return {source[i]["patient"].decode() for i in range(len(source))}


@pytest.fixture
def root(tmp_path):
    write_pairs(tmp_path / "root", PATIENTS)
    return tmp_path / "root"


@pytest.mark.slow
def test_a_patient_of_another_size_is_left_out_of_training_alone(
    root, tmp_path, caplog
):
    write_pairs(root, ("E", "F"), size=12)
    sources = open_sources(config_of(tmp_path, data__test_patients=("F", "A")))
    assert patients_of(sources.train) == {"B", "C", "D"}
    assert patients_of(sources.test) == {"A", "F"}
    assert "E/scan: 12 x 12 pixels, the others have 16 x 16" in caplog.text
    shape = np.shape(Stacks(sources.train, 1)[0]["lq"])
    for index in range(len(sources.train)):
        training_record(shape)(Stacks(sources.train, 1)[index] | {"draw": 0})


def test_strict_refuses_before_training_with_all_that_was_left_out(root, tmp_path):
    write_pairs(root, ("E",), size=12)
    (root / "gt" / "C" / "scan.nii").write_bytes(b"broken")
    # A folder of its own: the data set is the same one, strict or not.
    config = config_of(tmp_path, data__test_patients=("A",))
    assert patients_of(open_sources(config).train) == {"B", "D"}
    config.strict = True
    with pytest.raises(UserError, match=r"config\.strict=True: 2 skipped") as error:
        train.train(config, tmp_path / "run")
    assert "E/scan" in str(error.value) and "C/scan.nii" in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_physical_noise_needs_the_size_of_a_pixel(tmp_path):
    root = tmp_path / "root"
    for patient in PATIENTS:
        write_png(root, patient)
    config = config_of(tmp_path, data__window=(-600.0, 1500.0))
    with pytest.raises(UserError, match=r"config\.data\.pixel_mm") as error:
        open_sources(config)
    assert "add_noise" in str(error.value)
    stated = config.copy_and_resolve_references()
    stated.data.pixel_mm = 0.8
    source = open_sources(stated).train
    np.testing.assert_array_equal(source[0]["spacing_mm"], np.float32([0.8, 0.8]))
    for purify in ({"add_noise": "reference"}, {"version": "v1"}, {"version": "none"}):
        other = config.copy_and_resolve_references()
        other.purify.update(purify)
        assert len(open_sources(other).train) > 0


def test_steps_take_the_sizes_in_turn():
    lq = np.arange(60, dtype=np.float32).reshape(1, 6, 10)
    record = {"lq": lq, "gt": lq + 1, "spacing_mm": np.float32([0.5, 0.5])}
    made = training_record(lq.shape, (1, 2, 4), slices=2)
    for draw, n in enumerate((1, 1, 2, 2, 4, 4, 1, 1)):
        found = made(record | {"draw": np.uint32(draw)})
        rows, columns = 6 // n, 10 // n
        for key in ("lq", "gt"):
            blocks = record[key][0, : rows * n, : columns * n]
            blocks = blocks.reshape(rows, n, columns, n).mean(axis=(1, 3))
            np.testing.assert_allclose(found[key][0], blocks, rtol=1e-6)
        np.testing.assert_array_equal(found["spacing_mm"], np.float32([0.5, 0.5]) * n)
        assert found["draw"] == draw


def test_those_of_unknown_pixel_size_are_left_out_among_others(root, tmp_path, caplog):
    write_png(root, "E")
    changes = {"data__window": (-600.0, 1500.0), "data__test_patients": ("A",)}
    config = config_of(tmp_path, **changes)
    assert patients_of(open_sources(config).train) == {"B", "C", "D"}
    assert "E/0: the size of a pixel is not known" in caplog.text
    config.purify.add_noise = "none"
    assert patients_of(open_sources(config).train) == {"B", "C", "D", "E"}


def test_an_external_test_set_is_whole_and_nothing_to_train_on(root, tmp_path):
    config = config_of(tmp_path, data__split=(0.0, 0.0, 1.0))
    sources = open_sources(config)
    assert patients_of(sources.test) == set(PATIENTS) and not len(sources.train)
    with pytest.raises(
        UserError, match=r"nothing to train on: config\.data\.split .*--task evaluate"
    ):
        train.train(config, tmp_path / "run")
    config.data.split = (1.0, 0.0, 0.0)
    sources = open_sources(config)
    assert len(sources.train) == 8 and not len(sources.held_out)


def test_nobody_left_to_train_on_is_told(root, tmp_path):
    config = config_of(tmp_path, data__test_patients=PATIENTS)
    with pytest.raises(UserError, match="nothing to train on: all patients are held"):
        train.train(config, tmp_path / "run")


def test_the_keys_that_messages_name_exist(tmp_path):
    keys = {key for key, _ in flatten(ipv2_redcnn.get_config())}
    write_pairs(tmp_path / "root", ("A", "B"))
    with pytest.raises(UserError) as error:
        open_sources(config_of(tmp_path))
    named = {
        word.split("config.")[1].split("=")[0].strip(".,;:()")
        for word in str(error.value).split()
        if "config." in word
    }
    assert named and named <= keys


def test_fingerprints_follow_files_and_build_nothing(root, tmp_path):
    config = config_of(tmp_path)
    before = fingerprints(config)
    assert list(before) == ["paired_folders"] and fingerprints(config) == before
    write_pairs(root, ("E",))
    assert fingerprints(config) != before
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_all_processes_see_what_one_has_built(root, tmp_path):
    one, other = run_processes(
        "tests.ipv2.sources_worker", tmp_path, processes=2, devices=1
    )
    assert one == other and '"train"' in one


def test_uneven_slices_are_for_networks_that_see_one(root, tmp_path):
    config = config_of(tmp_path, data__gaps="allow", model__channels=3)
    with pytest.raises(UserError, match=r"config\.data\.gaps: got 'allow'.*sees 3"):
        train.train(config, tmp_path / "run")
