"""Task calibrate: what it reads, what it prints, and that simulate takes it."""

import dataclasses
import errno
import json
import shlex

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from common.errors import Incomplete, UserError
from common.folder_lock import hold_folder
from configs import simulate as recipe
from ipv2.calibration import Calibration
from ipv2.ct_io import ReadOptions, Volume, write_volume
from ipv2.tasks import calibrate as task
from ipv2.tasks import simulate
from ipv2.tasks.check import check_simulate_config
from ipv2.tasks.job_settings import simulate_settings
from ipv2.tasks.rules import SIMULATE_RULES
from tests.oracles.thorax import thorax

SIZE = 64
FOUND = Calibration(
    photons=2.5e5,
    photons_error=0.1,
    electronic_variance=12.5,
    electronic_error=2.0,
    filter_name="ramp",
    cutoff=1.0,
    cutoff_error=None,
    window=(1.0, 1.5, 0.25),
    views=None,
    mu_water_per_mm=0.0192,
    patches=9,
    slices=3,
    noise_hu=20.0,
    model_hu=20.5,
    level_spread=0.02,
    texture_error=0.03,
    relation="",
)


def write(path, count=4, first=0.0, size=SIZE, value=0.0):
    """Slices that carry their number along the patient in their values."""
    number = (np.arange(count) + first)[:, None, None]
    hu = thorax(size).hu[None] + number + value
    volume = Volume(
        hu=hu.astype(np.float32),
        spacing_mm=(1.0, 2.0, 2.0),
        origin_mm=(0.0, 0.0, first),
        integer=True,
    )
    return write_volume(volume, path)


def config_of(source, **changes):
    config = recipe.get_config()
    config.data.input = str(source)
    config.noise.views = 24
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def calls(monkeypatch):
    """What `calibrate` is called with; it finds FOUND."""
    calls = []

    def calibrate(images, spacing_mm, **options):
        calls.append((images, np.asarray(spacing_mm), options))
        return FOUND

    monkeypatch.setattr(task, "calibrate", calibrate)
    monkeypatch.setattr(simulate, "calibrate", calibrate)
    return calls


def test_slices_of_all_volumes_are_calibrated_together(calls, tmp_path, caplog):
    write(tmp_path / "in/p1.mha", 60)
    write(tmp_path / "in/p2.mha", 60, value=100)
    write(tmp_path / "in/p3.mha", 2, size=32)
    (tmp_path / "in/p4.mha").write_bytes(b"nothing")
    config = config_of(tmp_path / "in", input_dose=0.5)
    task.calibrate_scans(config, tmp_path / "work")
    ((images, spacing, options),) = calls
    # 48 of four volumes: twelve of each of the two that fit.
    assert images.shape == (24, SIZE, SIZE)
    np.testing.assert_array_equal(spacing, np.full(24, 2.0))
    number = images[:, 0, 0] + 1000
    assert number[0] == 0 and number[11] == 59
    assert number[12] == 100 and number[23] == 159
    np.testing.assert_array_equal(options.pop("relative_current"), np.ones(24))
    assert options == {"dose": 0.5, "electronic_variance": 10.0, "views": 24}
    assert "2 skipped:" in caplog.text and "calibrate them apart" in caplog.text


def test_pairs_are_matched_by_name_and_position(calls, tmp_path):
    write(tmp_path / "in/p1.mha", 4)
    write(tmp_path / "in/p2.mha", 4)
    write(tmp_path / "low/p2.mha", 4, first=2.0, value=500)
    config = config_of(
        tmp_path / "in", **{"data.low": str(tmp_path / "low"), "data.low_dose": 0.1}
    )
    task.calibrate_scans(config, tmp_path / "work")
    ((images, _, options),) = calls
    low, normal = images
    np.testing.assert_array_equal(normal[:, 0, 0], [-998, -997])
    np.testing.assert_array_equal(low - normal, np.full_like(low, 500))
    assert options["dose"] == (0.1, 1.0)
    assert [len(one) for one in options["relative_current"]] == [2, 2]


def test_all_slices_of_a_pair_are_used(calls, tmp_path):
    for name in ("in/p1.mha", "low/p1.mha"):
        write(tmp_path / name, 100)
    config = config_of(
        tmp_path / "in", **{"data.low": str(tmp_path / "low"), "data.low_dose": 0.1}
    )
    task.calibrate_scans(config, tmp_path / "work")
    (((low, normal), _, _),) = calls
    assert len(low) == len(normal) == 100


def test_a_bowtie_filter_is_among_the_overrides():
    found = dataclasses.replace(FOUND, bowtie_mm=90.0, bowtie_error=0.1)
    assert "  --config.noise.bowtie_mm=90" in task.overrides(found)
    assert not any("bowtie" in line for line in task.overrides(FOUND))
    assert found.dose_params(0.25).bowtie_mm == 90.0


def test_a_record_of_an_older_version_is_replaced(calls, tmp_path):
    write(tmp_path / "a.mha")
    record = dataclasses.asdict(FOUND)
    del record["bowtie_mm"], record["bowtie_error"]
    place = tmp_path / "work/calibration.json"
    place.parent.mkdir()
    place.write_text(json.dumps(record))
    task.calibrate_scans(config_of(tmp_path / "a.mha"), tmp_path / "work")
    assert "bowtie_mm" in json.loads(place.read_text())


def test_what_is_printed_is_what_simulate_takes(calls, tmp_path, capsys, monkeypatch):
    write(tmp_path / "a.mha")
    task.calibrate_scans(config_of(tmp_path / "a.mha"), tmp_path / "work")
    printed = capsys.readouterr().out
    assert "photons per ray at normal dose: 2.5e+05" in printed
    record = json.loads((tmp_path / "work/calibration.json").read_text())
    assert record["photons"] == 2.5e5
    command = ["launch.py", *shlex.split(printed.split("to use it:")[1])]
    monkeypatch.setattr("sys.argv", command)  # the flags of a config look there
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", recipe.get_config(), flag_values=values)
    values(command)
    assert simulate_settings(values.config).noise == FOUND.dose_params(0.25)


def test_each_volume_on_itself(calls, tmp_path):
    path = write(tmp_path / "a.mha")
    config = config_of(
        path, calibrate=True, dose=0.1, input_dose=0.5, output=str(tmp_path / "out")
    )
    with simulate.open_scan(path, ReadOptions()) as volume:
        found = simulate.noise_of(volume, simulate_settings(config))
    assert found == FOUND.dose_params(0.1, 0.5)
    ((images, spacing, options),) = calls
    assert images.shape == (4, SIZE, SIZE) and spacing == 2.0
    assert options["dose"] == 0.5


def test_a_long_volume_is_calibrated_on_some_of_its_slices(calls, tmp_path):
    path = write(tmp_path / "a.mha", 95)
    config = config_of(path, calibrate=True)
    with simulate.open_scan(path, ReadOptions()) as volume:
        simulate.noise_of(volume, simulate_settings(config))
    ((images, _, _),) = calls
    # Every other one: they carry their numbers.
    np.testing.assert_array_equal(images[:, 0, 0] + 1000, np.arange(0, 95, 2))


def test_skipped_volumes_are_an_error_with_strict(calls, tmp_path):
    write(tmp_path / "in/a.mha")
    (tmp_path / "in/b.mha").write_bytes(b"nothing")
    with pytest.raises(Incomplete, match="1 skipped"):
        task.calibrate_scans(config_of(tmp_path / "in", strict=True), tmp_path / "work")
    assert (tmp_path / "work/calibration.json").is_file()


def test_a_file_that_cannot_be_read_is_one_of_the_skipped(
    calls, tmp_path, caplog, monkeypatch
):
    for name in "ab":
        write(tmp_path / f"in/{name}.mha")
    read = task.read_scan

    def fails(path, config):
        if path.name == "a.mha":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path, config)

    monkeypatch.setattr(task, "read_scan", fails)
    task.calibrate_scans(config_of(tmp_path / "in"), tmp_path / "work")
    assert "1 skipped:" in caplog.text and "Input/output error" in caplog.text
    ((images, _, _),) = calls
    assert len(images) == 4


def test_a_record_that_cannot_be_written_is_named(calls, tmp_path, monkeypatch):
    def refuse(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(task, "write_atomically", refuse)
    write(tmp_path / "a.mha")
    with pytest.raises(UserError, match=r"calibration\.json: cannot be written \(No"):
        task.calibrate_scans(config_of(tmp_path / "a.mha"), tmp_path / "work")


def test_another_s_file_is_not_replaced(calls, tmp_path):
    write(tmp_path / "a.mha")
    work, place = tmp_path / "work", tmp_path / "work/calibration.json"
    for content in ("mine", '{"photons": 1}'):
        work.mkdir(exist_ok=True)
        place.write_text(content)
        with pytest.raises(UserError, match=r"calibration\.json: is in the way"):
            task.calibrate_scans(config_of(tmp_path / "a.mha"), work)
        assert place.read_text() == content and not calls
    place.unlink()
    (place / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match=r"calibration\.json: is in the way"):
        task.calibrate_scans(config_of(tmp_path / "a.mha"), work)
    assert (place / "mine").is_dir() and not calls


def test_its_own_record_is_replaced(calls, tmp_path):
    write(tmp_path / "a.mha")
    for _ in range(2):
        task.calibrate_scans(config_of(tmp_path / "a.mha"), tmp_path / "work")
    assert len(calls) == 2


def test_one_command_at_a_time_works_in_the_folder(calls, tmp_path):
    write(tmp_path / "a.mha")
    with (
        hold_folder(tmp_path / "work", "x"),
        pytest.raises(UserError, match="task calibrate: another command"),
    ):
        task.calibrate_scans(config_of(tmp_path / "a.mha"), tmp_path / "work")
    assert not calls


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.low_dose": 1.0}, r"low_dose: got 1\.0, accepted: below"),
        ({"data.input": "other"}, "has the name of one of"),
    ],
)
def test_pairs_that_are_none_are_refused(calls, tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.mha", "low/a.mha", "other/b.mha"):
        write(tmp_path / name)
    config = config_of("in", **{"data.low": "low"} | changes)
    with pytest.raises(UserError, match=said):
        task.calibrate_scans(config, tmp_path / "work")
    assert not calls


def test_a_fan_beam_is_not_calibrated(tmp_path):
    config = config_of(tmp_path, calibrate=True)
    config.noise.source_distance_mm = 600.0
    with pytest.raises(UserError, match="parallel beams only"):
        check_simulate_config(config)


@pytest.mark.parametrize(
    ("window", "accepted"), [((), True), ((1.0, 2.0), True), ((1.0,), False)]
)
def test_a_window_has_two_factors_or_none(window, accepted):
    assert SIMULATE_RULES["noise.window"].accepts(window) == accepted
