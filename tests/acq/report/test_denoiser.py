"""The report of a quantized denoiser, from made-up results."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from acq.report import compose, denoiser
from acq.report.denoiser import denoiser_report, moved_most, verdict
from acq.report.glossary import OF_DENOISERS
from acq.report.hu_pictures import difference_png, images_png
from acq.tasks.denoiser_outputs import format_judged
from common.report.page import write_page
from common.report.parts import Picture, Plot, ViewedSlice, Viewer
from tests.acq.report.made_up_run import CIRCUMSTANCES

FLOAT = {"psnr_full_db": 35.1, "bias_air_hu": 1.0, "bias_bone_hu": -2.0}
QUANTIZED = {
    "psnr_full_db": 34.85,
    "psnr_to_float_db": 50.0,
    "bias_air_hu": 1.5,
    "bias_bone_hu": -6.0,
    "noise_soft_hu": 70.0,
}


def results(**changes):
    rows = {
        "input": {"psnr_full_db": 30.0},
        "float": FLOAT,
        "noisy_phantom": {"psnr_full_db": 34.0, "bias_lung_hu": None},
        "real": {"psnr_full_db": 34.5},
        "quantized": QUANTIZED,
    }
    return {
        "network": "dncnn",
        "teacher": {"sha256": "ab"},
        "weight_bits": 4,
        "activation_bits": 6,
        "first_last_bits": 8,
        "ranges": "generated",
        "ranges_in_words": "images of the generator",
        "generator_steps": 1200,
        "student_steps": 80,
        "seed": 3,
        "seconds": 9.0,
        "judged": {"ct": rows},
        "warnings": ["some slices were seen"],
    } | changes


def view(**changes):
    ramp = np.arange(64, dtype=np.int16).reshape(8, 8)
    images = {name: ramp for name in ("input", "float", "quantized", "truth")}
    return ViewedSlice("ct, slice 3", "held out", images | changes, "float", 0.8)


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.setattr(
        compose, "curves", lambda metrics, names, *, linear: "<svg></svg>"
    )
    monkeypatch.setattr(denoiser, "difference_png", lambda one: b"slice")
    monkeypatch.setattr(denoiser, "images_png", lambda hu: b"images")
    for folder, name in ((tmp_path, "student"), (tmp_path / "generator", "generator")):
        folder.mkdir(exist_ok=True)
        line = json.dumps({"step": 1, f"train/{name}_loss": 1.0})
        (folder / "metrics.jsonl").write_text(line + "\n")
    return denoiser_report(
        results(),
        [view()],
        np.zeros((5, 4, 4)),
        CIRCUMSTANCES,
        student_metrics=tmp_path / "metrics.jsonl",
        generator_metrics=tmp_path / "generator" / "metrics.jsonl",
    )


def test_the_verdict_compares_with_the_float_network():
    assert verdict(results()) == (
        "W4A6 of dncnn: on ct 34.85 dB against the truth, 0.25 dB below the float "
        "network, and bone moves most of all tissues, by -4.0 HU."
    )
    better = {"float": FLOAT, "quantized": {"psnr_full_db": 36.0}}
    assert verdict(results(judged={"a": better, "b": better})) == (
        "W4A6 of dncnn: on a 36.00 dB against the truth, 0.90 dB above the float "
        "network; on b 36.00 dB against the truth, 0.90 dB above the float network."
    )
    other = {"float": {"rms": 0.0}, "quantized": {"rms": 1.0}}
    said = verdict(results(judged={"noise": other}))
    assert said == "W4A6 of dncnn: no PSNR was measured."


def test_a_tissue_that_one_network_lacks_does_not_count():
    rows = {"float": FLOAT, "quantized": {**QUANTIZED, "bias_bone_hu": None}}
    assert moved_most(rows, "quantized") == ("air", 0.5)
    assert moved_most({"float": FLOAT, "quantized": {}}, "quantized") is None


def test_the_report_has_every_row_and_says_what_was_run(report):
    assert report.warnings == ["some slices were seen"]
    assert report.facts["bits"] == "W4A6, first and last convolution 8 bits"
    assert report.facts["steps of the generator"] == "1,200"
    assert report.facts["ranges from"] == "images of the generator"
    assert [row[:3] for row in report.headline.rows] == [
        ("ct", "input, low dose", 30.0),
        ("ct", "float network", 35.1),
        ("ct", "quantized network", 34.85),
    ]
    assert report.headline.rows[-1][3:] == (-4.0, "bone", 70.0)
    (table,) = report.sections[1].parts
    assert [row[0] for row in table.rows] == [
        "input, low dose",
        "float network",
        "rounded, ranges of noisy phantom",
        "rounded, ranges of real CT (oracle)",
        "quantized network",
    ]
    assert table.rows[2][1:5] == (34.0, None, None, None)
    assert table.rows[4][1:3] == (34.85, 50.0)


def test_every_measure_of_a_table_is_explained(report):
    tables = [report.headline, *report.sections[1].parts]
    named = {column.measure for table in tables for column in table.columns} - {""}
    explained = {measure.name for measure in report.glossary}
    assert named == explained == {measure.name for measure in OF_DENOISERS}


def test_the_report_has_slices_images_and_curves_and_is_a_page(report, tmp_path):
    slices, _, images, training, _ = report.sections
    viewer, picture = slices.parts
    assert isinstance(viewer, Viewer) and len(viewer.slices) == 1
    assert (
        picture.png == b"slice"
        and picture.title == "ct, slice 3"
        and "-20 to 20 HU" in picture.note
    )
    (generated,) = images.parts
    assert isinstance(generated, Picture) and "-1350 to 150 HU" in generated.note
    assert [plot.title for plot in training.parts] == ["Student", "Generator"]
    assert all(isinstance(plot, Plot) for plot in training.parts)
    write_page(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text()
    assert "bone moves most of all tissues" in page and "moved most" in page


def test_rounding_alone_has_neither_generator_nor_curves(tmp_path):
    nothing = tmp_path / "metrics.jsonl"
    report = denoiser_report(
        results(generator_steps=0, student_steps=0),
        [],
        None,
        CIRCUMSTANCES,
        student_metrics=nothing,
        generator_metrics=nothing,
    )
    titles = [section.title for section in report.sections]
    assert titles == ["All rows, means over slices", "Config"]
    assert not [fact for fact in report.facts if fact.startswith("steps")]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int64)


@pytest.mark.slow
def test_pictures_show_the_difference_in_colour_and_nothing_where_there_is_none():
    equal = np.full((8, 8), -600, np.int16)
    same = dict.fromkeys(("input", "float", "quantized"), equal)
    coloured = {}
    for added in (0, 20):
        brighter = (equal + added).astype(np.int16)
        found = pixels(difference_png(view(**{**same, "quantized": brighter})))
        # Above the scales.
        panel = found[: 2 * len(found) // 3, found.shape[1] // 2 :]
        red = panel[..., 0] - panel[..., 2]
        coloured[added] = np.mean(red > 60)
    assert coloured[0] == 0 < 0.1 < coloured[20]


def test_generated_images_are_drawn_in_the_lung_window():
    dark, grey, white = (np.full((1, 4, 4), hu) for hu in (-1350.0, -600.0, 150.0))
    found = pixels(images_png(np.concatenate([dark, grey, white])))
    row = found[len(found) // 4, :, 0]
    assert np.mean(row == 0) > 0.15 and np.mean(abs(row - 127) <= 1) > 0.15


def test_the_table_of_the_log_has_the_columns_of_the_page():
    text = format_judged(results())
    assert text.startswith("dncnn, W4A6, ct: PSNR of the full range")
    assert "noisy_phantom" in text and "outline" in text and "34.85" in text
