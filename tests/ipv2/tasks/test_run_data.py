import copy
import itertools
import json
import os

import pytest

from common.errors import UserError
from ipv2.tasks import run_data
from ipv2.tasks.run_data import (
    data_record,
    differences,
    hold_data,
    refuse_other_data,
)
from ipv2.tasks.sources import open_sources
from tests.ipv2.pair_folders import config_of, write_pair, write_pairs


@pytest.fixture
def begun(tmp_path):
    """A config, and the folder of a run that computed something on its data."""
    write_pairs(tmp_path / "root", ("A", "B", "C", "D"))
    config = config_of(tmp_path)
    hold_data(open_sources(config), tmp_path / "run")
    (tmp_path / "run" / "results.json").touch()
    return config, tmp_path / "run"


def test_what_a_run_saw_is_kept(begun):
    config, workdir = begun
    record = json.loads((workdir / "data.json").read_text())
    assert set(record) == {"software_version", "unavailable", "datasets"}
    (found,) = record["datasets"].values()
    assert sum(found["records"].values()) == 8
    everyone = itertools.chain.from_iterable(found["patients"].values())
    assert sorted(everyone) == ["A", "B", "C", "D"]
    assert len(found["sha256"]["pairs"]) == 64
    assert differences(record, data_record(open_sources(config))) == []


def test_untouched_data_are_known_without_a_look(begun, monkeypatch):
    monkeypatch.setattr(run_data, "open_sources", None)
    refuse_other_data(*begun)


def test_touched_files_of_the_same_content_are_the_same_data(begun, monkeypatch):
    config, workdir = begun
    os.utime(f"{config.data.root}/lq/A/scan.nii", (0, 0))
    refuse_other_data(config, workdir)
    # From then on these are known without a look.
    monkeypatch.setattr(run_data, "open_sources", None)
    refuse_other_data(config, workdir)


@pytest.mark.slow
def test_other_data_are_refused_with_the_difference(begun, tmp_path):
    config, workdir = begun
    root, kept = tmp_path / "root", (workdir / "data.json").read_text()
    write_pair(root, "A", seed=99)
    for check in (refuse_other_data, _resume):
        with pytest.raises(UserError, match="the same patients, but other values: SHA"):
            check(config, workdir)
    write_pair(root, "A", seed=sum(b"A"))
    write_pairs(root, ("E",))
    with pytest.raises(
        UserError, match=r"patient 'E' is new, in \w+\n.*the run has \d"
    ):
        refuse_other_data(config, workdir)
    assert (workdir / "data.json").read_text() == kept


def _resume(config, workdir):
    hold_data(open_sources(config), workdir)


def test_another_version_is_refused(begun, monkeypatch):
    monkeypatch.setattr(run_data, "VERSION", "99")
    for check in (refuse_other_data, _resume):
        with pytest.raises(
            UserError, match=r"software version: the run has .*, this is 99"
        ):
            check(*begun)


def test_where_nothing_was_computed_other_data_begin(begun, tmp_path):
    config, workdir = begun
    (workdir / "results.json").unlink()
    write_pairs(tmp_path / "root", ("E",))
    _resume(config, workdir)
    assert '"E"' in (workdir / "data.json").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["patients"]["train"].remove("A"), "patient 'A' of train is gone"),
        (lambda d: d["patients"]["val"].append("Z"), "patient 'Z' is new, in val"),
        (
            lambda d: d["patients"].update(train=["B"], test=["C", "A"]),
            "patient 'A' moved from train to test",
        ),
        (
            lambda d: d["records"].update(test=7),
            "test: the run has 2 slices, this command 7",
        ),
        (lambda d: d["sha256"].update(pairs="cd" * 32), "other values: SHA-256 abab"),
    ],
)
def test_each_difference_is_named(change, said):
    own = {
        "fingerprint": "root-1",
        "patients": {"train": ["A", "B"], "val": [], "test": ["C"]},
        "records": {"train": 4, "val": 0, "test": 2},
        "sha256": {"pairs": "ab" * 32},
    }
    run = {"software_version": "1", "unavailable": [], "datasets": {"folders": own}}
    now = copy.deepcopy(run)
    assert differences(run, now) == []
    change(now["datasets"]["folders"])
    (line,) = differences(run, now)
    assert line.startswith("folders: ") and said in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(software_version=1),
        lambda d: d.update(unavailable="none"),
        lambda d: d.update(datasets=[]),
        lambda d: d["datasets"].update(other={}),
        lambda d: d["datasets"].update(other=None),
        lambda d: _own(d).update(fingerprint=None),
        lambda d: _own(d).update(patients=[]),
        lambda d: _own(d)["patients"].update(train=[1]),
        lambda d: _own(d)["patients"].update(train="AB"),
        lambda d: _own(d)["records"].pop("val"),
        lambda d: _own(d)["records"].update(val="1"),
        lambda d: _own(d)["sha256"].update(pairs=1),
        lambda d: d.clear(),
    ],
)
def test_a_record_of_another_form_is_told(begun, damage):
    config, workdir = begun
    found = json.loads((workdir / "data.json").read_text())
    damage(found)
    (workdir / "data.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"data\.json: damaged.*another --workdir"):
        refuse_other_data(config, workdir)


def _own(record):
    (own,) = record["datasets"].values()
    return own


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'{"mine": 1}'])
@pytest.mark.parametrize("computed", [False, True])
def test_a_damaged_record_is_told_and_stays(begun, content, computed):
    config, workdir = begun
    (workdir / "data.json").write_bytes(content)
    if not computed:
        (workdir / "results.json").unlink()
    for check in (refuse_other_data, _resume):
        with pytest.raises(UserError, match=r"data\.json: damaged"):
            check(config, workdir)
    assert (workdir / "data.json").read_bytes() == content
