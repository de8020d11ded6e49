"""A comparison in two processes over gloo: none waits for ever, and numbers agree."""

import json

import pytest

from tests.processes import run_processes


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_compare_as_one_does(tmp_path):
    found = {
        processes: [
            json.loads(line)
            for line in run_processes(
                "tests.ipv2.compare_worker",
                tmp_path / str(processes),
                processes=processes,
                devices=4 // processes,
            )
        ]
        for processes in (1, 2)
    }
    (one,), (first, second) = found[1], found[2]
    assert first == second
    ours, theirs = (run["cnn10"]["none"]["slices"] for run in (one, first))
    assert [s["slice"] for s in ours] == [s["slice"] for s in theirs]
    for a, b in zip(ours, theirs, strict=True):
        # Two steps of the same examples; sums in another order.
        assert b["output"]["rmse_hu"]["full"] == pytest.approx(
            a["output"]["rmse_hu"]["full"], rel=1e-3
        )
    run = tmp_path / "2" / "run"
    assert (run / "report.html").stat().st_size > 10_000
    assert (run / "comparison.txt").is_file()
