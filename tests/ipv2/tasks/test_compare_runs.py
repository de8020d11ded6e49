"""Finished runs compared slice by slice."""

import copy
import json

import numpy as np
import pytest

from common.errors import UserError
from configs import quickstart
from ipv2.tasks.check import check_config
from ipv2.tasks.compare import compare
from ipv2.tasks.compare_runs import differences_of, format_differences
from ipv2.tasks.result_files import SCHEMA_VERSION


def results(psnr, patients=None, label="truth", **output):
    """Results of slices whose PSNR is that of the list."""
    patients = patients or ["p"] * len(psnr)
    return {
        "schema_version": SCHEMA_VERSION,
        "n_slices": len(psnr),
        "datasets": {
            "ct": {
                "label": label,
                "n_slices": len(psnr),
                "n_patients": len(set(patients)),
            }
        },
        "slices": [
            {
                **{"dataset": "ct", "patient": patient, "name": patient, "slice": i},
                "input": {"rmse_hu": {"full": 100.0 + i}},
                "output": {"psnr_db": {"lung": value}, "contour_mm": None, **output},
            }
            for i, (value, patient) in enumerate(zip(psnr, patients, strict=True))
        ],
    }


def write(folder, found, name="results.json"):
    folder.mkdir()
    (folder / name).write_text(json.dumps(found))
    return str(folder)


def run(tmp_path, *runs):
    config = quickstart.get_config()
    config.compare.runs = runs
    compare(config, tmp_path / "work")
    return json.loads((tmp_path / "work" / "paired.json").read_text())


EASY_AND_HARD = [20.0, 30.0, 22.0, 35.0]


def test_differences_are_paired_so_that_difficult_slices_drop_out(tmp_path, capsys):
    better = [value + 0.5 for value in EASY_AND_HARD]
    a = write(tmp_path / "a", results(EASY_AND_HARD, [*"ppqr"]))
    b = write(tmp_path / "b", results(better, [*"ppqr"]), "evaluation.json")
    found = run(tmp_path, a, b)
    block = found["datasets"]["ct"]
    assert found["first"] == a and block["interval_over"] == "patients"
    one = block["runs"][b]["psnr_db.lung"]
    assert one["first"] == np.mean(EASY_AND_HARD) and one["other"] == np.mean(better)
    assert one["difference"] == pytest.approx(0.5) and one["n"] == 4
    assert one["interval"] == pytest.approx([0.5, 0.5])
    assert "paired; 95 % intervals over patients" in " ".join(
        capsys.readouterr().out.split()
    )
    assert not (tmp_path / "work" / "results.json").exists()
    assert "better than" in (tmp_path / "work" / "report.html").read_text()


def test_intervals_of_one_patient_are_over_slices_and_say_so():
    found = differences_of(
        {"a": results([20.0, 21.0, 22.0]), "b": results([20.5, 21.0, 24.0])}
    )
    low, high = found["datasets"]["ct"]["runs"]["b"]["psnr_db.lung"]["interval"]
    assert 0 <= low < 2.5 / 3 < high <= 2
    text = " ".join(format_differences(found, short=True).split())
    assert "over slices (of one patient: they say nothing of others)" in text


def test_a_measure_without_numbers_is_null_and_one_slice_has_no_interval():
    found = differences_of({"a": results([20.0]), "b": results([21.0])})
    measures = found["datasets"]["ct"]["runs"]["b"]
    assert measures["contour_mm"] == {
        **dict.fromkeys(("first", "other", "difference", "sd", "interval")),
        "n": 0,
    }
    assert measures["psnr_db.lung"]["difference"] == 1
    assert measures["psnr_db.lung"]["interval"] is None
    full = format_differences(found, short=False)
    assert "contour_mm" in full and "psnr_db.lung" in full


def _of_other_slices(found):
    found["slices"][1]["slice"] = 7


def _of_fewer_slices(found):
    del found["slices"][1]


def _of_another_label(found):
    found["datasets"]["ct"]["label"] = "v2"


def _of_another_dose(found):
    found["slices"][0]["input"]["rmse_hu"]["full"] = 110.0


def _of_an_old_version(found):
    del found["schema_version"]


def _of_a_comparison(found):
    found.clear()
    found["cnn10"] = {}


def _of_filters(found):
    del found["slices"][0]["output"]


def _of_nothing(found):
    found["n_slices"] = 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _of_other_slices,
            r"1 only in .*a \(ct, p, slice 1\); 1 only in .*b \(ct, p, s",
        ),
        (_of_fewer_slices, r"a has 2 slices, .*b 1; 1 only in"),
        (_of_another_label, r"a was measured against \{'ct': 'truth'\}, .*'v2'"),
        (_of_another_dose, r"input's RMSE is 100 HU in .*a and 110 HU in .*b, so the"),
        (_of_an_old_version, r"keys of version 1, accepted: 2"),
        (_of_a_comparison, r"give the folders of its trainings, NETWORK/PAIRS"),
        (_of_filters, r"it holds filters alone"),
        (_of_nothing, r"nothing was held out"),
    ],
)
def test_runs_that_do_not_compare_are_refused_in_words(tmp_path, change, said):
    first = results([20.0, 21.0])
    second = copy.deepcopy(first)
    change(second)
    a, b = write(tmp_path / "a", first), write(tmp_path / "b", second)
    with pytest.raises(UserError, match=said):
        run(tmp_path, a, b)
    assert not (tmp_path / "work").exists()


def test_folders_without_results_are_refused(tmp_path):
    a = write(tmp_path / "a", results([20.0]))
    (tmp_path / "b").mkdir()
    with pytest.raises(
        UserError, match=r"b holds no results\.json or evaluation\.json"
    ):
        run(tmp_path, a, str(tmp_path / "b"))


@pytest.mark.parametrize("runs", [("a",), ("a", "a"), "a"])
def test_one_run_does_not_compare(runs):
    config = quickstart.get_config()
    with config.ignore_type():
        config.compare.runs = runs
    with pytest.raises(UserError, match=r"compare\.runs: .* two finished runs or more"):
        check_config(config)
