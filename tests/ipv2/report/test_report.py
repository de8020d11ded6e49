"""Reports composed from results: numbers, undefined ones, and what is missing."""

import copy
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from common.report.page import write_page
from common.report.parts import Estimate, Plot, Table, Text, Viewer
from ipv2.report.about import About
from ipv2.report.numbers import at, dataset_numbers
from ipv2.report.paired import paired_report
from ipv2.report.report import View, comparison_report, run_report
from ipv2.report.verdict import NO_RANKING
from ipv2.report.verdict import NOTHING as NOTHING_SAID
from ipv2.report.viewed_slices import SeenSlice
from ipv2.tasks.compare_runs import differences_of
from tests.ipv2.report.made import (
    NOTHING,
    dataset,
    detail,
    distances,
    numbers,
    of_psnr,
    results,
    undefined,
)

ABOUT = About(title="work", network="cnn10", facts={"Seed": "0"})
INPUT, TV, OUTPUT = [20.0, 21.0], [22.0, 24.0], [25.0, 23.0]


def parts(report, kind):
    return [one for section in report.sections for one in section.parts
            if isinstance(one, kind)]  # fmt: skip


def tables(report):
    return {one.title: one for one in parts(report, Table)}


def cell(table, row, title):
    """A cell of the row that begins with these cells."""
    titles = [column.title for column in table.columns]
    (found,) = [one for one in table.rows if list(one[: len(row)]) == list(row)]
    return found[titles.index(title)]


def full(**changes):
    """A data set with everything: label, nodules, distances."""
    found = of_psnr(input=INPUT, tv=TV, output=OUTPUT)
    label = of_psnr(label="v2", input=INPUT, tv=TV, output=OUTPUT)
    block = found["datasets"]["ct"]
    block["against_label"] = label["datasets"]["ct"]
    block["distances"] = distances()
    found["detail"] = {"ct": detail()}
    return found | changes


def checked(report):
    """The report, whose drawings are well-formed, and whose columns are explained."""
    for plot in parts(report, Plot):
        assert ElementTree.fromstring(plot.svg).tag.endswith("svg")
        assert "nan" not in plot.svg.lower()
    explained = {one.name for one in report.glossary}
    for table in [report.headline, *parts(report, Table)]:
        assert {one.measure for one in table.columns} - {""} <= explained
    return report


@pytest.mark.slow
def test_the_headline_has_a_row_for_every_image_with_the_numbers_of_the_results():
    found = full()
    table = checked(run_report(found, ABOUT)).headline
    assert [row[:2] for row in table.rows] == [
        *(["ct", "input"], ["ct", "tv"], ["ct", "output"])
    ]
    paths = {
        "PSNR, lung window (dB)": ("psnr_db", "lung"),
        "PSNR, soft-tissue window (dB)": ("psnr_db", "soft_tissue"),
        "SSIM, lung window": ("ssim", "lung"),
        "bias, bone (HU)": ("tissues", "bone", "bias_hu"),
        "bias, soft (HU)": ("tissues", "soft", "bias_hu"),
        "bias, lung (HU)": ("tissues", "lung", "bias_hu"),
        "slope of vessels": ("slopes", "vessels"),
        "outline (mm)": ("contour_mm",),
    }
    assert [one.title for one in table.columns[2:]] == list(paths)
    block = found["datasets"]["ct"]
    for image in ("input", "tv", "output"):
        for title, path in paths.items():
            low, high = at(block["interval"][image], path)
            assert cell(table, ("ct", image), title) == Estimate(
                at(block[image], path), low, high, at(block["n"][image], path)
            )
    assert "intervals over slices" in table.note and "of one patient" in table.note


@pytest.mark.slow
def test_every_number_of_the_full_tables_is_one_of_the_results():
    found = full()
    report = run_report(found, ABOUT)
    values = {float(one) for one in _leaves(json.loads(json.dumps(found)))}
    seen = 0
    for table in tables(report).values():
        for row in table.rows:
            for one in row:
                if isinstance(one, Estimate):
                    ends = {one.low, one.high} - {None}
                    assert {one.mean, *ends} <= values
                    seen += 1
    # Three images of some 50 measures.
    assert seen > 150


def _leaves(tree):
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(value)
    elif isinstance(tree, int | float):
        yield tree


@pytest.mark.slow
def test_a_report_holds_all_that_was_measured(tmp_path):
    report = checked(run_report(full(), ABOUT))
    write_page(tmp_path / "report.html", report)
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert [one.title for one in report.sections] == [
        "ct against the truth: 2 slices of 1 patient",
        "ct against IPv2's test label: 2 slices of 1 patient",
    ]
    assert [one.title for one in parts(report, Plot)] == [
        *("Bias by tissue", "Noise power spectrum of the error"),
        "d' against dose: nodules in lung",
    ]
    first = [one.title for one in report.sections[0].parts if isinstance(one, Table)]
    assert first == [
        *("By window", "By window, as seen", "Bias and noise by tissue"),
        *("Bias and noise by region", "Edges, foci and texture"),
        *("Edges in what was removed", "Inserted nodules in lung"),
        "Distances of the features of bands",
        "Every slice: PSNR, lung window (dB)",
    ]
    of = tables(report)
    # Nothing was removed from the input.
    assert [r[0] for r in of["Edges in what was removed"].rows] == ["tv", "output"]
    row = ("p", "p", 1, 21.0, 24.0, 23.0)
    assert tuple(of["Every slice: PSNR, lung window (dB)"].rows[1]) == row
    nodules = of["Inserted nodules in lung"]
    assert cell(nodules, ("6 mm of -100 HU", "output"), "d'") == Estimate(2.0, 1.5, 2.5)
    assert cell(nodules, ("6 mm of -100 HU", "tv"), "worth a dose of") == "more"
    far = of["Distances of the features of bands"]
    assert far.note == "few" and cell(far, ("tv",), "FID, floor") is None


@pytest.mark.slow
def test_what_was_not_asked_for_is_not_there():
    found = of_psnr(input=INPUT, output=OUTPUT)
    report = checked(run_report(found, ABOUT))
    assert len(report.sections) == 1
    assert not [one for one in tables(report) if "nodules" in one or "Dist" in one]
    assert "d'" not in {one.name for one in report.glossary}


@pytest.mark.slow
def test_notes_texts_and_warnings_are_passed_on():
    about = About(
        title="work",
        facts={"Seed": "0"},
        warnings=["beware"],
        notes={"ct": ["tv 1 x noise.", "Aligned."]},
        texts=[Text("Config", "{}")],
    )
    report = run_report(full(), about)
    assert report.warnings == ["beware"] and report.facts == {"Seed": "0"}
    notes = [
        next(one for one in section.parts if isinstance(one, Table)).note
        for section in report.sections[:2]
    ]
    assert notes == ["tv 1 x noise. Aligned.", NO_RANKING]
    assert report.sections[-1].parts == about.texts


def test_a_run_that_held_nobody_out_says_so():
    report = checked(run_report(NOTHING, ABOUT))
    assert report.verdict == NOTHING_SAID
    assert report.headline.rows == [] and "Nothing was measured" in report.headline.note
    assert report.sections == []


def test_numbers_that_are_not_defined_stay_none_everywhere():
    images = {
        "input": undefined(numbers(INPUT, made=False)),
        "tv": undefined(numbers(INPUT)),
        "output": undefined(numbers(INPUT)),
    }
    block, rows = dataset(images)
    block["error_nps"] = {
        image: {"frequency_per_mm": None, "power_hu2_mm2": None, "n": 0}
        for image in images
    }
    block["distances"] = distances()
    for one in block["distances"]["bands"].values():
        one.update(fid=None, kid={"value": None, "low": None, "high": None})
    found = results(ct=(block, rows)) | {"detail": {"ct": detail(None)}}
    report = checked(run_report(found, ABOUT))
    assert parts(report, Plot) == []
    assert all(one is None for row in report.headline.rows for one in row[2:])
    for title, table in tables(report).items():
        first = {
            "Inserted nodules in lung": 3,
            "Every slice: PSNR, lung window (dB)": 3,
        }
        first["Distances of the features of bands"] = 2
        values = [one for row in table.rows for one in row[first.get(title, 1) :]]
        assert set(values) <= {None, "more"}, title


@pytest.mark.slow
def test_one_slice_has_means_without_intervals():
    report = checked(run_report(of_psnr(input=[20.0], output=[25.0]), ABOUT))
    found = cell(report.headline, ("ct", "output"), "PSNR, lung window (dB)")
    assert found == Estimate(25.0, None, None, 1)
    assert "Bias by tissue" in [one.title for one in parts(report, Plot)]


def test_without_an_aligned_reference_places_are_not_compared():
    found = of_psnr(label="v2", input=INPUT, output=OUTPUT)
    report = checked(run_report(found, ABOUT))
    assert cell(report.headline, ("ct", "output"), "slope of vessels") is None
    of = tables(report)
    assert "Bias and noise by tissue" not in of
    assert "Every slice: RMSE against v2 (HU)" in of
    assert [one.title for one in parts(report, Plot)] == ["Bias by region"]


@pytest.mark.slow
def test_numbers_of_a_validation_have_fewer_tables():
    found = of_psnr(input=INPUT, output=OUTPUT)
    block = found["datasets"]["ct"]
    for key in ("gmsd", "ms_ssim", "vif", "vif_ldct_benchmark", "noise_index_hu"):
        for image in ("input", "output"):
            del block[image][key]
    assert "By window, as seen" not in tables(run_report(found, ABOUT))


def test_the_training_has_curves_if_it_logged_anything(tmp_path):
    path = tmp_path / "metrics.jsonl"
    about = About(title="work", facts={}, metrics={"Training": path})
    assert run_report(NOTHING, about).sections == []
    path.write_text(
        '{"step": 1, "train/loss": 2.0}\n'
        '{"step": 2, "train/loss": 1.0, "val/ct/psnr_db_lung": 20.0}\n'
    )
    (section,) = run_report(NOTHING, about).sections
    (plot,) = section.parts
    assert section.title == "Training" and "val/ct/psnr_db_lung" in plot.svg
    assert "gradient_norm" not in plot.svg


def _seen(index, role, size=96):
    """A slice of a disc of lung, blurred for the output."""
    y, x = np.mgrid[:size, :size] - size / 2
    edge = np.clip(np.hypot(x, y) - 25, -1, 1)
    soft = np.clip((np.hypot(x, y) - 25) / 3, -1, 1)
    truth, blurred = (-400 + 450 * one for one in (edge, soft))
    return SeenSlice(
        index=index,
        role=role,
        images={"input": truth, "output": blurred, "truth": truth},
        reference="truth",
        lung=np.hypot(x, y) < 25,
        pixel_mm=0.8,
    )


def view(found, slices):
    one = dataset_numbers(found)[0]
    return View(title="ct", numbers=one, slices=slices, note="why")


@pytest.mark.slow
def test_viewed_slices_come_first_and_have_profiles_across_edges():
    found = full()
    views = [view(found, [_seen(1, "worst"), _seen(0, "best")])]
    report = checked(run_report(found, ABOUT, views))
    assert report.sections[0].title == "Slices"
    (viewer,) = parts(report, Viewer)
    assert [one.role for one in viewer.slices] == ["worst", "best"]
    assert viewer.note == "why"
    (plot,) = [one for one in parts(report, Plot) if "Profiles" in one.title]
    assert "mm from the edge" in plot.svg and "output" in plot.svg


@pytest.mark.slow
def test_small_and_constant_slices_have_no_profiles():
    found = full()
    flat = np.full((128, 128), -1000.0)
    constant = SeenSlice(
        index=0,
        role="only slice",
        images=dict.fromkeys(("input", "output", "truth"), flat),
        reference="truth",
        lung=np.zeros(flat.shape, bool),
        pixel_mm=None,
    )
    for one in (_seen(0, "only slice", 64), constant):
        report = checked(run_report(found, ABOUT, [view(found, [one])]))
        assert not [one for one in parts(report, Plot) if "Profiles" in one.title]


@pytest.mark.slow
def test_runs_share_input_and_filters_and_have_an_output_each():
    runs = {
        "IPv1": full(),
        "IPv2": of_psnr(input=INPUT, tv=TV, output=[30.0, 31.0]),
    }
    runs["IPv2"]["detail"] = {"ct": detail(3.0)}
    report = checked(comparison_report(runs, ABOUT))
    assert [row[1] for row in report.headline.rows] == [
        *("input", "tv", "IPv1", "IPv2"),
    ]
    title = "PSNR, lung window (dB)"
    assert cell(report.headline, ("ct", "IPv2"), title).mean == 30.5
    assert cell(report.headline, ("ct", "IPv1"), title).mean == 24.0
    nodules = tables(report)["Inserted nodules in lung"]
    assert cell(nodules, ("6 mm of -100 HU", "IPv2"), "d'").mean == 3.0
    assert cell(nodules, ("6 mm of -100 HU", "tv"), "d'").mean == 2.0
    # IPv2's run has no numbers against the label.
    assert len(report.sections) == 1


@pytest.mark.slow
def test_many_runs_are_drawn_as_far_as_lines_can_be_told_apart():
    one = of_psnr(input=INPUT, tv=TV, output=OUTPUT)
    runs = {f"run{i}": copy.deepcopy(one) for i in range(20)}
    report = checked(comparison_report(runs, ABOUT))
    spectrum = next(p for p in parts(report, Plot) if "spectrum" in p.title)
    assert "Not drawn, of which the tables tell: run11, run12" in spectrum.note
    assert len(report.headline.rows) == 22


def test_paired_runs_have_their_differences():
    a = of_psnr(input=INPUT, output=OUTPUT)
    b = of_psnr(input=INPUT, output=[26.0, 25.0])
    compared = differences_of({"a": a, "b": b})
    report = checked(paired_report(compared, ABOUT))
    one = compared["datasets"]["ct"]["runs"]["b"]["psnr_db.lung"]
    row = ("ct", "b", "psnr_db.lung")
    low, high = one["interval"]
    found = cell(report.headline, row, "other less first")
    assert found == Estimate(1.5, low, high, 2)
    assert cell(report.headline, row, "first") == 24.0
    (table,) = parts(report, Table)
    assert len(table.rows) == len(compared["datasets"]["ct"]["runs"]["b"])
    assert {"PSNR", "bias", "outline"} <= {one.name for one in report.glossary}


def test_paired_measures_without_numbers_are_none():
    a = of_psnr(input=[20.0], output=[25.0])
    for row in a["slices"]:
        row["output"]["contour_mm"] = None
    report = checked(paired_report(differences_of({"a": a, "b": a}), ABOUT))
    row = ("ct", "b", "contour_mm")
    assert cell(report.headline, row, "other less first") is None
    assert cell(report.headline, row, "slices") == 0
