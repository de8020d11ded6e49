"""Tests of ipv2.tasks.result_files."""

import csv
import io

from ipv2.tasks.result_files import slices_csv, write_files

WINDOWS = {"lung": {"low_hu": -1350.0, "high_hu": 150.0}}


def results(*slices):
    return {
        "windows": WINDOWS,
        "datasets": {"ct": {"label": "truth"}},
        "slices": [
            {"dataset": "ct", "patient": "p", "name": "p/scan", "slice": number}
            | images
            for number, images in enumerate(slices)
        ],
    }


INPUT = {"psnr_db": {"lung": 20.5}, "contour_mm": None}
OUTPUT = INPUT | {"removed": {"slope_share": 0.01}}


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_is_an_image_of_a_slice_with_all_of_its_numbers():
    found = results({"input": INPUT, "output": OUTPUT}, {"input": INPUT})
    rows = rows_of(slices_csv({(): found}))
    assert [(r["slice"], r["image"]) for r in rows] == [
        *(("0", "input"), ("0", "output"), ("1", "input"))
    ]
    assert rows[0] == {
        **{"dataset": "ct", "patient": "p", "name": "p/scan", "slice": "0"},
        **{"image": "input", "label": "truth", "psnr_db.lung": "20.5"},
        **{"contour_mm": "", "removed.slope_share": "", "window_hu.lung": "-1350..150"},
    }
    assert rows[1]["removed.slope_share"] == "0.01"


def test_rows_of_several_runs_name_their_run():
    one = results({"input": INPUT})
    rows = rows_of(slices_csv({("unet", "v2"): one}, ("network", "pairs")))
    assert [(r["network"], r["pairs"], r["image"]) for r in rows] == [
        ("unet", "v2", "input")
    ]


def test_files_hold_the_tables_and_the_slices(tmp_path):
    write_files(tmp_path, "results", "a table", {(): results({"input": INPUT})})
    assert (tmp_path / "results.txt").read_text() == "a table\n"
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2


def test_without_slices_there_is_no_row():
    assert rows_of(slices_csv({(): results()})) == []
