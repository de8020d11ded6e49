"""Results: a folder that has them is complete."""

from common.results import finished_results, write_results


def test_results_are_those_written(tmp_path):
    assert finished_results(tmp_path / "run") is None
    results = {"top1": 91.73, "seed": 0, "bits": {"weight": 4}}
    write_results(tmp_path / "run", results)
    assert finished_results(tmp_path / "run") == results


def test_a_folder_with_anything_else_is_not_complete(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / ".results.json.17.json").write_text("{")  # of a run that was killed
    assert finished_results(tmp_path) is None
