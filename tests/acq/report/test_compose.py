"""Reports of made-up runs: their numbers, and what they say of what is missing."""

import json
import math

import numpy as np
import pytest

from acq.report import compose
from acq.report.compose import evaluation_report, quantization_report
from acq.report.glossary import MEASURES
from acq.report.intervals import wilson
from acq.tasks.baselines import BASELINES
from common.report.parts import Estimate, Picture, Plot, Table, Text
from tests.acq.made_up_diagnosis import make_diagnosis, make_variety
from tests.acq.report.made_up_run import (
    CIRCUMSTANCES,
    RECORD,
    quantized,
    quantized_one_layer,
    results,
    without_images,
)


def _report(folder, run=None, diagnosis=None, export=None):
    return quantization_report(
        results() if run is None else run,
        make_diagnosis() if diagnosis is None else diagnosis,
        quantized() if export is None else export,
        CIRCUMSTANCES,
        student_metrics=folder / "metrics.jsonl",
        generator_metrics=folder / "generator" / "metrics.jsonl",
    )


@pytest.fixture
def drawn():
    """Asks for drawings as they are; without it tests have quick stand-ins."""


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    if "drawn" in request.fixturenames:
        return
    monkeypatch.setattr(compose, "figure_svg", lambda figure: "<svg/>")
    for name in ("samples_png", "modes_png"):
        monkeypatch.setattr(compose, name, lambda diagnosis, record: b"")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "generator").mkdir()
    for path, names in (
        (tmp_path / "metrics.jsonl", ("train/student_loss", "val/top1")),
        (tmp_path / "generator" / "metrics.jsonl", ("train/generator_loss",)),
    ):
        lines = [{"step": i} | dict.fromkeys(names, 1.0 * i) for i in (1, 2)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def _parts(report, kind):
    every = [part for section in report.sections for part in section.parts]
    return {part.title: part for part in every if isinstance(part, kind)}


def _rows(table):
    return {row[0]: row[1:] for row in table.rows}


@pytest.mark.slow
def test_the_headline_has_the_numbers_of_the_results(folder):
    run = results()
    rows = _rows(_report(folder, run).headline)
    assert list(rows) == [
        "teacher, float",
        "rounded, ranges from noise",
        "rounded, ranges from samples",
        "rounded, ranges from real images",
        "quantized",
    ]
    entries = (run["teacher"], *run["baselines"].values(), run["quantized"])
    for (top1, *_), entry in zip(rows.values(), entries, strict=True):
        low, high = wilson(entry["correct"], run["n"])
        assert top1 == Estimate(entry["top1"], low, high, run["n"])
        assert low < entry["top1"] < high
    found = run["quantized"]
    expected = (found["best_top1"], found["agreement"], found["kl"], None)
    assert rows["quantized"][1:] == expected
    for name, points in (
        ("teacher, float", -2.0),
        ("rounded, ranges from noise", 19.5),
    ):
        difference = rows[name][-1]
        assert difference.mean == pytest.approx(points)
        assert difference.low < points < difference.high


@pytest.mark.slow
def test_every_number_of_the_samples_is_that_of_the_results(folder):
    diagnosis = make_diagnosis()
    run = results(samples=diagnosis.scalars())
    rows = _rows(_parts(_report(folder, run), Table)["100 samples"])
    assert rows.pop("agreement_on_samples") == (run["agreement_on_samples"],)
    expected = {k.removeprefix("samples/"): (v,) for k, v in run["samples"].items()}
    assert rows == expected


@pytest.mark.slow
def test_facts_say_what_was_run(folder):
    facts = _report(folder).facts
    assert facts == {
        "network": "small, 5 classes, images of 8 x 8 x 3",
        "weights": "net.npz",
        "SHA-256 of the weights": "ab" * 32,
        "bits": "W4A3, other tensors float32, fc W8",
        "evaluated on": "images.npz, 200 images",
        "images at the teacher's BatchNorm": (
            "distance 0.21 (0 as in training, far from 0.5 on)"
        ),
        "seed": "7",
        "steps of the student": "600",
        "version": "0.1.0, commit 0123456789ab",
        "time": "2026-01-31 12:30 UTC, 93.1 s after the last start, 0.1234 s a step",
        "machine": "4 x cpu (cpu)",
    }


@pytest.mark.slow
def test_a_report_holds_all_its_parts(folder, drawn):
    report = _report(folder)
    assert report.title == "run: small" and report.warnings == ["a class is dead"]
    assert report.verdict.startswith("W4A3 gets 89.50 %")
    plots = _parts(report, Plot)
    assert list(plots) == [
        "Student",
        "Generator",
        "Requested and achieved centres of attention",
        "Weights by layer, in kB",
        "Ranges by layer",
    ]
    assert "val/top1" in plots["Student"].svg
    assert "train/agreement" not in plots["Student"].svg  # was not logged
    pictures = _parts(report, Picture)
    assert list(pictures) == [
        "Samples, with the teacher's attention",
        "Attention in evaluation and in training mode",
    ]
    assert all(one.png.startswith(b"\x89PNG") for one in pictures.values())
    (config,) = _parts(report, Text).values()
    assert config.text == CIRCUMSTANCES.config


def test_every_measure_of_a_table_is_explained(folder):
    diagnosis = make_diagnosis(
        statistics=dict.fromkeys(
            ("eval_squared", "eval_relative", "train_squared", "train_relative"), 1.0
        )
    )
    run = results(samples=diagnosis.scalars())
    report = _report(folder, run, diagnosis)
    tables = [report.headline, *_parts(report, Table).values()]
    named = {column.measure for table in tables for column in table.columns} - {""}
    named |= {key.removeprefix("samples/") for key in run["samples"]}
    explained = {measure.name for measure in report.glossary}
    # All measures but none: no run has more names than this one.
    assert named | {"agreement_on_samples"} == explained
    assert explained == {measure.name for measure in MEASURES}


@pytest.mark.slow
def test_sizes_and_ranges_are_those_of_the_export(folder):
    tables = _parts(_report(folder), Table)
    assert _rows(tables["Sizes"])["weights"] == (512, 128, 74)
    ranges = _rows(tables["Ranges by layer"])
    assert ranges["conv"][:2] == ("convolution", 4)
    assert ranges["conv"][2:] == pytest.approx((-1.2, 1.6, 0.25))
    assert ranges["act"] == ("activation", 3, 0, 3.5, 0.5)
    assert _rows(tables["Weights by layer"])["conv"][2:] == (108, 432, 108, 54)


def test_recognition_is_told_by_class(folder):
    diagnosis = make_diagnosis(drawn=np.array([20, 20, 0, 40, 20]))
    table = _parts(_report(folder, diagnosis=diagnosis), Table)[
        "Samples that the teacher recognises, by class"
    ]
    rows = _rows(table)
    assert "class 2" not in rows and rows["class 1"] == (20, 18, 90.0)


def test_of_many_classes_those_of_the_picture_are_told(folder):
    diagnosis = make_diagnosis(drawn=np.ones(1000, int), recognised=np.zeros(1000, int))
    table = _parts(_report(folder, diagnosis=diagnosis), Table)[
        "Samples that the teacher recognises, by class"
    ]
    assert len(table.rows) == 5 and "1,000 drawn" in table.note


@pytest.mark.slow
def test_without_images_the_headline_is_the_agreement_on_samples(folder):
    report = _report(folder, without_images())
    assert report.headline.rows == [("agreement_on_samples", 98.5)]
    assert report.facts["evaluated on"] == "no images"
    assert "images at the teacher's BatchNorm" not in report.facts
    assert "top-1 is unknown" in report.verdict


def test_without_baselines_there_are_two_networks(folder):
    rows = _rows(_report(folder, results(baselines={})).headline)
    assert list(rows) == ["teacher, float", "quantized"]


def test_an_undefined_divergence_is_no_number_and_is_said(folder):
    run = results()
    run["quantized"]["kl"] = None
    report = _report(folder, run)
    assert _rows(report.headline)["quantized"][3] is None
    assert [text for text in report.warnings if "KL is undefined" in text]


@pytest.mark.slow
def test_results_of_before_the_pairs_were_counted_say_so(folder):
    run = results()
    del run["quantized"]["only_teacher_right"]
    assert "unpaired" in _report(folder, run).headline.note
    assert not _report(folder).headline.note


@pytest.mark.parametrize("missing", ["no file", "empty", "no step"])
def test_without_metrics_there_are_no_curves(tmp_path, missing):
    if missing != "no file":
        text = '{"step": 1, "samples/finite": 1.0}\n' if missing == "no step" else ""
        (tmp_path / "metrics.jsonl").write_text(text)
    run = results(agreement_on_samples=None)
    report = _report(tmp_path, run)
    assert "Training" not in [section.title for section in report.sections]
    assert _rows(_parts(report, Table)["100 samples"])["agreement_on_samples"] == (
        None,
    )


@pytest.mark.slow
def test_a_network_of_one_layer_is_reported(folder, drawn):
    report = _report(folder, export=quantized_one_layer())
    ((name, *_),) = _parts(report, Table)["Ranges by layer"].rows
    assert name == "fc"


@pytest.mark.slow
def test_one_class_is_reported(folder, drawn):
    one = make_diagnosis(
        shown_classes=1,
        drawn=np.array([100]),
        recognised=np.array([100]),
        variety=make_variety(in_class=(0.9,)),
    )
    table = _parts(_report(folder, results(samples=one.scalars()), one), Table)[
        "Samples that the teacher recognises, by class"
    ]
    assert table.rows == [("class 0", 100, 100, 100.0)]


@pytest.mark.parametrize("bits", [8, 32])
def test_other_bits_are_told(folder, bits):
    run = results(bits={"weight": 4, "activation": 3, "other": bits})
    export = quantized(other_bits=None if bits == 32 else bits)
    report = _report(folder, run, export=export)
    words = "float32" if bits == 32 else "8 bits"
    assert f"other tensors {words}" in report.facts["bits"]
    ranges = _rows(_parts(report, Table)["Ranges by layer"])
    assert ("input" in ranges) == (bits == 8)


@pytest.mark.slow
def test_samples_that_are_not_finite_are_reported(folder, drawn):
    nan = math.nan
    diagnosis = make_diagnosis(finite=0.0, achieved=np.full((100, 2), nan))
    run = results(samples=diagnosis.scalars())
    report = _report(folder, run, diagnosis)
    assert "center_r2" not in _rows(_parts(report, Table)["100 samples"])
    assert (
        "R² undefined"
        in _parts(report, Plot)["Requested and achieved centres of attention"].svg
    )


def test_an_evaluation_of_teacher_and_export_is_reported():
    run = {key: results()[key] for key in ("n", "teacher", "quantized")}
    del run["quantized"]["best_top1"]
    report = evaluation_report(run, RECORD, quantized(), ["odd"], CIRCUMSTANCES)
    rows = _rows(report.headline)
    assert list(rows) == ["teacher, float", "quantized"]
    assert rows["quantized"][1:4] == (None, 95.5, 0.0754)
    assert report.verdict.startswith("W4A3 gets 89.50 %") and report.warnings == ["odd"]
    assert report.facts["bits"] == "W4A3, other tensors float32, fc W8"
    assert report.facts["seed"] == "7" and "Sizes" in _parts(report, Table)


def test_an_evaluation_of_the_teacher_alone_is_reported():
    run = {key: results()[key] for key in ("n", "teacher")}
    report = evaluation_report(run, RECORD, None, [], CIRCUMSTANCES)
    assert [row[0] for row in report.headline.rows] == ["teacher, float"]
    assert [section.title for section in report.sections] == ["Config"]
    assert "bits" not in report.facts and "91.50 %" in report.verdict


def test_every_baseline_has_a_name(folder):
    found = results()["baselines"]["noise"]
    run = results(baselines=dict.fromkeys(BASELINES, found))
    assert len(_report(folder, run).headline.rows) == len(BASELINES) + 2
