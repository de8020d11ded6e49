"""A workdir with results is complete."""

import json

import pytest

from common.errors import UserError
from common.results import finished_results, write_results


def _finished(workdir):
    return finished_results(workdir, "quantize", lambda found: "top1" in found)


def test_results_are_those_written(tmp_path):
    assert _finished(tmp_path / "run") is None
    results = {"top1": 91.73, "seed": 0, "bits": {"weight": 4}}
    write_results(tmp_path / "run", results)
    assert _finished(tmp_path / "run") == results


def test_a_folder_with_anything_else_is_not_complete(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / ".results.json.17.json").write_text("{")  # of a run that was killed
    assert _finished(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b'{"top1": 91.', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_told(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(UserError, match=r"(?s)results\.json: damaged.*--workdir"):
        _finished(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == content


def test_a_folder_in_its_place_is_told(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(UserError, match=r"results\.json: damaged, or not of this"):
        _finished(tmp_path)


@pytest.mark.parametrize("content", [["top1"], "top1", {"mine": 1}, None])
def test_another_task_s_results_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"task quantize.* holds a run of another task"):
        _finished(tmp_path)
