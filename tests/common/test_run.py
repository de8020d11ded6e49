"""A run begins once, goes on with its config alone, and replaces nobody's files."""

import json

import pytest

from common.errors import UserError
from common.run import Run
from common.workdir import anything_computed

CONFIG = {
    "seed": 0,
    "train": {"steps": 10, "lr": 1e-3, "schedule": "cosine"},
    "data": {"names": ("a", "b"), "shuffle": True},
}


def run_of(workdir, *, free=(), **changes):
    """The run with other values in its sections."""
    config = {
        key: value | changes.get(key, {}) if isinstance(value, dict) else value
        for key, value in CONFIG.items()
    }
    return Run(config=config, workdir=workdir, free=free)


def test_a_run_goes_on_with_its_config_but_for_what_decides_nothing(tmp_path):
    run_of(tmp_path, free=("data",)).begin()
    written = (tmp_path / "config.json").read_text()
    assert json.loads(written)["train"]["steps"] == 10
    (tmp_path / "metrics.jsonl").touch()
    run_of(tmp_path, free=("data",), data={"shuffle": False}).begin()
    other = run_of(tmp_path, free=("data",), train={"lr": 0.5})
    for check in (other.refuse_other, other.begin):
        with pytest.raises(UserError, match=r"config\.train\.lr: the run has 0\.001"):
            check()
    assert (tmp_path / "config.json").read_text() == written


def test_a_key_that_came_later_is_no_difference_where_it_is_none(tmp_path):
    run_of(tmp_path).begin()
    (tmp_path / "metrics.jsonl").touch()
    run_of(tmp_path, train={"new": None}).refuse_other()
    with pytest.raises(UserError, match=r"train\.new: the run has 'not stated', this"):
        run_of(tmp_path, train={"new": 1}).refuse_other()


def test_where_nothing_was_computed_another_config_begins(tmp_path):
    run_of(tmp_path).begin()
    for name in ("data.json", ".lock", ".cache/index", "model/pairs/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "checkpoints").mkdir()
    assert not anything_computed(tmp_path)
    run_of(tmp_path, train={"lr": 0.5}).begin()
    assert json.loads((tmp_path / "config.json").read_text())["train"]["lr"] == 0.5
    (tmp_path / "checkpoints" / "step").touch()
    with pytest.raises(UserError, match="another config"):
        run_of(tmp_path, train={"lr": 0.25}).refuse_other()


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"", b'{"mine": 1}'])
@pytest.mark.parametrize("computed", [False, True])
def test_a_foreign_config_is_refused_in_words(tmp_path, content, computed):
    (tmp_path / "config.json").write_bytes(content)
    if computed:
        (tmp_path / "results.json").touch()
    for check in (run_of(tmp_path).refuse_other, run_of(tmp_path).begin):
        with pytest.raises(UserError, match=r"config\.json: not the config of a run"):
            check()
    assert (tmp_path / "config.json").read_bytes() == content


def test_a_folder_in_the_place_of_the_config_is_refused(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json: not the config of a run"):
        run_of(tmp_path).begin()


@pytest.mark.parametrize(
    "name",
    [
        *("results.json", "report.html", "comparison.txt", "metrics.jsonl"),
        *("data.json", "export/weights.npz", "checkpoints/1/x", "checkpoints"),
    ],
)
def test_what_lies_where_results_go_without_a_run_is_not_replaced(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    for check in (run_of(tmp_path).refuse_other, run_of(tmp_path).begin):
        with pytest.raises(UserError, match=f"that are not of a run: .*/{name} lies"):
            check()
    assert not (tmp_path / "config.json").exists()


def test_other_files_are_in_nobody_s_way(tmp_path):
    for name in ("notes.txt", "lq/p1.png", "teacher/config.json", "export/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "checkpoints").mkdir()
    run_of(tmp_path).begin()
    assert (tmp_path / "config.json").exists()


def test_a_held_run_tells_whether_it_is_complete(tmp_path):
    run = run_of(tmp_path / "run")
    with run.hold("train", lambda found: "n" in found) as finished:
        assert finished is None
        run.begin()
        (run.workdir / "results.json").write_text('{"n": 1}')
    with run.hold("train", lambda found: "n" in found) as finished:
        assert finished == {"n": 1}
        with (
            pytest.raises(UserError, match="task train"),
            run.hold("train", lambda found: True),
        ):
            pass
