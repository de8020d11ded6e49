"""Tests of ipv2.tasks.tables."""

import numpy as np
import pytest

from ipv2.measures.full_measures import REMOVED
from ipv2.measures.summary import summary_block
from ipv2.measures.tissues import TISSUES
from ipv2.report.verdict import NO_RANKING
from ipv2.tasks.tables import format_comparison, format_grid, format_results, has_places

NAMES = ("input", "gaussian", "tv", "nlm", "bm3d", "output")


def numbers(start, count, *, places=True):
    """Numbers of `count` slices; PSNR in the lung begins at `start` dB."""

    def leaf(value):
        return np.arange(count, dtype=np.float32) + value

    windows = ("lung", "soft_tissue", "full")
    regions = ("background", "lung", "body")
    of_regions = ["bias_hu", "noise_sd_hu"] + ["local_noise_sd_hu"] * places
    found = {
        "psnr_db": {name: leaf(start) for name in windows},
        "ssim": {name: leaf(0.5) for name in windows},
        "rmse_hu": {name: leaf(1234.5) for name in windows},
        "regions": {r: {key: leaf(-1000) for key in of_regions} for r in regions},
    }
    if not places:
        return found
    bias_and_noise = ("bias_hu", "noise_sd_hu")
    return found | {
        "tissues": {t: {key: leaf(-100) for key in bias_and_noise} for t in TISSUES},
        "dense_foci": {"mean_kept": leaf(0.9), "peak_kept": leaf(np.nan)},
        "slopes": {"vessels": leaf(0.8), "pleura": leaf(0.9)},
        "contour_mm": leaf(0.26),
        "error_frequencies": {"peak_per_mm": leaf(0.1), "mean_per_mm": leaf(0.2)},
    }


def full_numbers(start, count, *, made):
    """The numbers of finished evaluations; what was removed is `made`'s alone."""

    def leaf(value):
        return np.arange(count, dtype=np.float32) + value

    windows = ("lung", "soft_tissue", "full")
    rises = {"rise_mm": leaf(1.5), "truth_rise_mm": leaf(1.25)}
    removed = {"removed": {name: leaf(np.nan) for name in REMOVED}} if made else {}
    return {
        **numbers(start, count),
        **{
            name: {window: leaf(0.5) for window in windows}
            for name in ("mae_hu", "gmsd", "ms_ssim", "vif")
        },
        "vif_ldct_benchmark": leaf(0.3),
        "noise_index_hu": leaf(1000.0),
        "edge_rises": {"vessels": rises, "pleura": rises},
        **removed,
    }


def full_block():
    images = {
        name: full_numbers(20.0, 3, made=name != "input")
        for name in ("input", "output")
    }
    return {"label": "truth", "noise": "sd", **summary_block(images, [*"abb"])}


def block(label="truth", count=3, patients=None, names=NAMES):
    places = label in ("truth", "gt")
    images = {
        name: numbers(20.0 + i, count, places=places) for i, name in enumerate(names)
    }
    return {
        "label": label,
        "noise": "sd of the difference",
        **summary_block(images, patients or ["a"] * count),
    }


def results(**blocks):
    total = sum(one["n_slices"] for one in blocks.values())
    return {"n_slices": total, "datasets": blocks}


def rows_of(text):
    """The first words of the lines."""
    return [line.split()[0] for line in text.split("\n") if line.split()]


def test_every_data_set_has_its_own_tables_with_every_image():
    text = format_results(
        results(ct=block(), phantom=block(count=5, patients=[*"aabbc"])), title="run"
    )
    assert "run: ct against truth, 3 slices of 1 patient:" in text
    assert "run: phantom against truth, 5 slices of 3 patients:" in text
    for name in NAMES:
        assert rows_of(text).count(name) == 2 * 3


def test_the_headlines_have_mean_deviation_and_interval():
    text = format_results(results(ct=block(patients=["a", "b", "c"])))
    row = next(line for line in text.split("\n") if line.startswith("output"))
    # 25, 26, 27 dB.
    assert row.split()[1:3] == ["26.00", "1.00"]
    low, high = map(float, row.split()[3].split(".."))
    assert 25 <= low < 26 < high <= 27
    assert "intervals over patients;" in text
    alone = format_results(results(ct=block()))
    assert (
        "intervals over slices (of one patient: they say\nnothing of others)" in alone
    )


def test_all_lines_are_of_at_most_120_columns():
    strengths = {
        name: {"strength": 1.25, "chosen_on": "train", "n_slices": 4, "at_end": True}
        for name in NAMES[1:-1]
    }
    found = results(simulated_pairs=block() | {"strengths": strengths})
    compared = format_comparison({"IPv2 - Remove noise": found}, title="trained on")
    grid = format_grid({"restormer": {"no_remove": found}}, {})
    for text in (format_results(found, title="workdir"), compared, grid):
        assert max(map(len, text.split("\n"))) <= 120


def test_what_no_slice_has_is_a_dash_and_slices_are_counted():
    text = format_results(results(ct=block()))
    structure = text.split("\n\n")[-1].split("\n")
    assert next(r for r in structure if r.startswith("output")).split()[2] == "-"
    assert structure[-1].split()[:4] == ["slices", "3", "0", "3"]


@pytest.mark.parametrize("label", ["v1", "v2"])
def test_against_a_test_label_no_places_are_compared_and_it_is_said_why(label):
    text = format_results(results(ct=block(label)))
    assert NO_RANKING in " ".join(text.split())
    assert "vessels" not in text and f"bias against {label}" in text
    assert NO_RANKING not in " ".join(format_results(results(ct=block())).split())


def test_beside_a_truth_the_label_has_tables_apart():
    one = block() | {"against_label": block("v2")}
    text = format_results(results(ct=one))
    truth, label = text.split("against v2", 1)
    assert "vessels" in truth and NO_RANKING in " ".join(label.split())


def test_alignment_and_strengths_are_told_below_the_first_table():
    one = block("gt") | {
        "alignment": {"share": 0.97, "n_tiles": 50, "n_slices": 8, "aligned": True},
        "strengths": {
            "tv": {"strength": 4.0, "chosen_on": "val", "n_slices": 4, "at_end": True},
            "gaussian": {
                **{"strength": 1.0, "chosen_on": "default"},
                **{"n_slices": 0, "at_end": False},
            },
        },
    }
    text = " ".join(format_results(results(ct=one)).split())
    assert "lq and gt are aligned: by correlation 97% of 50 tiles of 8 slices" in text
    assert (
        "tv 4 x noise (chosen on 4 validation slices, at an end of the range)" in text
    )
    assert "gaussian 1 px (default: no slices to choose on)" in text


def test_the_full_tables_have_every_measure_and_the_main_ones_stay_short():
    found = results(ct=full_block())
    short, text = (format_results(found, title="run", full=f) for f in (False, True))
    assert text.startswith(short)
    assert max(map(len, text.split("\n"))) <= 120
    added = text.removeprefix(short)
    for word in ("MAE HU", "GMSD", "MS-SSIM", "VIF", "noise index", "rise mm"):
        assert word in added and word not in short, word
    audit = added.split("\n\n")[-1]
    assert rows_of(audit).count("output") == 1 and "input  " not in audit
    # Ranges of the windows, in HU.
    assert "lung -1350..150, soft -160..240, full -1024..3072" in added
    both = format_comparison({"none": found, "v2": found}, full=True)
    assert rows_of(both).count("v2") == 3 + 4


def test_results_without_the_further_measures_have_the_main_tables_alone():
    found = results(ct=block())
    assert format_results(found, full=True) == format_results(found)


def test_runs_are_compared_below_their_common_input_and_filters():
    found = results(ct=block(names=("input", "tv", "output")))
    text = format_comparison({"none": found, "v2": found})
    rows = rows_of(text)
    assert rows.count("none") == rows.count("v2") == rows.count("tv") == 3
    assert "output" not in rows


def test_runs_that_do_not_compare_are_refused():
    one, two = results(ct=block()), results(ct=block(count=2))
    with pytest.raises(ValueError, match="n_slices is 3 for a but 2 for b"):
        format_comparison({"a": one, "b": two})
    with pytest.raises(ValueError, match="label is 'truth' for a but 'v2' for b"):
        format_comparison({"a": one, "b": results(ct=block("v2"))})
    with pytest.raises(ValueError, match=r"a was measured on \['ct'\] but b on"):
        format_comparison({"a": one, "b": results(phantom=block())})
    with pytest.raises(ValueError, match="no run"):
        format_comparison({})


def test_a_grid_has_one_line_per_training_under_input_and_filters():
    found = results(ct=block(names=("input", "tv", "output")))
    text = format_grid(
        {"cnn10": {"v1": found, "v2": found | {"seconds": 7.4}}, "unet": {}},
        {"v1": "IPv1"},
    )
    lines = text.split("\n")
    starts = [line.split()[0] for line in lines[-4:]]
    assert starts == ["(input)", "(tv)", "cnn10", "cnn10"]
    assert "IPv1" in lines[-2] and lines[-2].endswith("-")
    assert "v2" in lines[-1] and lines[-1].endswith("7")


def test_a_run_without_slices_says_so():
    assert format_results(results(), title="x") == (
        "x: nothing was held out to measure"
    )


def test_places_are_those_of_aligned_references():
    assert has_places(results(ct=block("gt")))
    assert not has_places(results(ct=block("gt"), phantom=block("v2")))
