"""Tables of results: every number of a run in its place, runs that do not compare."""

import copy

import pytest

from acq.tasks.tables import format_modes, format_results, format_runs

RUN = {
    "bits": {"weight": 4, "activation": 4, "other": 32},
    "n": 1000,
    "seed": 7,
    "steps": 600,
    "seconds_per_step": 0.5,
    "teacher": {"top1": 91.7},
    "baselines": {"noise": {"top1": 87.5}},
    "quantized": {"top1": 90.1, "best_top1": 90.4, "agreement": 95.25, "kl": 0.0754},
    "samples": {"samples/center_r2": 0.625},
    "agreement_on_samples": 98.5,
    "complaints": ["a class is dead"],
}


def run(**quantized):
    changed = copy.deepcopy(RUN)
    changed["quantized"].update(quantized)
    return changed


def cells(text: str, start: str) -> list[str]:
    """Numbers of the one row that begins so."""
    (row,) = (line for line in text.splitlines() if line.startswith(start))
    return row.removeprefix(start).split()


def test_a_run_s_table_has_all_its_numbers():
    text = format_results(RUN)
    assert text.startswith("W4A4, 1,000 images, seed 7, 600 steps of 0.50 s")
    assert cells(text, "teacher, float") == ["91.70", "-", "-", "-"]
    assert cells(text, "rounded, ranges from noise") == ["87.50", "-", "-", "-"]
    assert cells(text, "quantized") == ["90.10", "90.40", "95.25", "0.0754"]
    assert cells(text, "center_r2") == ["0.625"]
    assert cells(text, "student as teacher %") == ["98.500"]
    assert "Look at this: a class is dead" in text


def test_both_modes_are_in_one_table():
    ready = {"top1": 89.9, "agreement": 95.0, "kl": 0.0801}
    found = {**RUN, "integer_ready": ready}
    text = format_results(found)
    assert cells(text, "quantized ") == ["90.10", "90.40", "95.25", "0.0754"]
    assert cells(text, "quantized, all integers") == ["89.90", "-", "95.00", "0.0801"]
    text = format_modes(found)
    assert text.startswith("1,000 images")
    assert cells(text, "teacher, float") == ["91.70", "-", "-"]
    assert cells(text, "quantized ") == ["90.10", "95.25", "0.0754"]
    assert cells(text, "quantized, all integers") == ["89.90", "95.00", "0.0801"]


def test_without_evaluation_data_there_is_no_accuracy():
    text = format_results({k: v for k, v in RUN.items() if k != "n"})
    assert "top-1" not in text and cells(text, "center_r2") == ["0.625"]


def test_seeds_of_a_method_are_one_row_with_mean_and_spread():
    text = format_runs({"acq": [run(), run(top1=90.5, kl=0.08)], "gdfq": [run()]})
    expected = ["2", "90.30", "0.40", "90.40", "0.0777", "0.0046", "0.62", "0.50"]
    assert cells(text, "acq ") == expected
    assert cells(text, "gdfq ")[:3] == ["1", "90.10", "0.00"]


def test_a_divergence_that_is_not_known_is_none():
    text = format_runs({"acq": [run(), run(kl=None)]})
    assert cells(text, "acq ")[4:6] == ["-", "-"]


@pytest.mark.parametrize("change", [{"n": 999}, {"bits": {"weight": 3}}])
def test_runs_that_do_not_compare_are_refused(change):
    with pytest.raises(ValueError, match="do not compare"):
        format_runs({"acq": [RUN], "gdfq": [RUN | change]})
    with pytest.raises(ValueError, match="no run"):
        format_runs({})
