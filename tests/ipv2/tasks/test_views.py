"""The slices that a report shows are those that were measured."""

import numpy as np
import pytest

from ipv2.tasks.views import Shown, views_of
from tests.ipv2.report.made import dataset, numbers, results
from tests.ipv2.tasks.test_references import SIZE, config, records, sources

STRENGTH = {"strength": 1.0, "chosen_on": "default", "n_slices": 0, "at_end": False}


def made_results(label, **psnr_of_outputs):
    """Results of the data set `ct` whose slices have these PSNR."""
    aligned = label == "gt"
    images = {"input": [20.0] * 4, "gaussian": [21.0] * 4} | psnr_of_outputs
    block, rows = dataset(
        {name: numbers(psnr, aligned=aligned) for name, psnr in images.items()},
        label=label,
    )
    block["strengths"] = {"gaussian": STRENGTH}
    return results(ct=(block, rows))


def shown(label="gt", psnr=(24.0, 21.0, 22.0, 23.0), count=4, **changes):
    """Four slices whose output is the input plus 7 HU."""
    return Shown(
        name="",
        runs={"output": made_results(label, output=list(psnr))},
        source=sources(test={"ct": records(count)}).held_out,
        channels=1,
        make_outputs=lambda batch: {"output": batch["lq"][..., 0] + 7},
    )._replace(**changes)


@pytest.fixture(scope="module")
def aligned():
    return views_of([shown()], config(batch_size=2))


@pytest.mark.slow
def test_worst_median_and_best_have_the_images_of_their_own_slice(aligned):
    (view,) = aligned.views
    assert aligned.left_out == "" and view.title == "ct"
    assert [(one.index, one.role) for one in view.slices] == [
        *((1, "worst"), (2, "median"), (0, "best"))
    ]
    held_out = records(4)
    for one in view.slices:
        record = held_out[one.index]
        assert list(one.images) == ["input", "gaussian", "output", "normal dose (gt)"]
        np.testing.assert_array_equal(one.images["input"], record["lq"])
        np.testing.assert_array_equal(one.images["output"], record["lq"] + 7.0)
        np.testing.assert_array_equal(one.images[one.reference], record["gt"])
        assert one.images["gaussian"].std() < one.images["input"].std()
        assert one.lung.shape == (SIZE, SIZE) and one.lung.any()
        assert one.pixel_mm == 2.5


def test_places_are_those_of_the_slices_that_were_measured(aligned):
    """Four of eight slices were: 0, 2, 4, 6."""
    view = views_of([shown(count=8)], config(batch_size=2, slices=4)).views[0]
    worst = view.slices[0]
    assert worst.index == 1
    np.testing.assert_array_equal(worst.images["input"], records(8)[2]["lq"])


def test_slices_that_have_no_room_are_left_out_and_it_is_said():
    pixels = SIZE * SIZE
    found = views_of([shown()], config(batch_size=2), most=8 * pixels)
    (view,) = found.views
    assert [one.role for one in view.slices] == ["worst", "median"]
    assert view.note.endswith("Not shown: best; the page stays below 15 MB.")


def test_filters_go_before_the_last_slice():
    found = views_of([shown()], config(batch_size=2), most=3 * SIZE * SIZE)
    (view,) = found.views
    assert list(view.slices[0].images) == ["input", "output", "normal dose (gt)"]
    assert "Images not shown: gaussian;" in view.note and len(view.slices) == 1


def test_a_data_set_without_room_is_named():
    found = views_of([shown()], config(batch_size=2), most=2 * SIZE * SIZE)
    assert found.views == []
    assert found.left_out == ("No slices are shown of ct: the page stays below 15 MB.")


def test_several_networks_have_a_view_each():
    makers = {"a": 1, "b": 2}
    both = [
        shown(
            name=name,
            runs={name: made_results("gt", output=[24.0, 21.0, 22.0, 23.0])},
            make_outputs=lambda batch, n=name: {n: batch["lq"][..., 0] + makers[n]},
        )
        for name in makers
    ]
    found = views_of(both, config(batch_size=2))
    assert [view.title for view in found.views] == ["a, ct", "b, ct"]
    for view, plus in zip(found.views, makers.values(), strict=True):
        one = view.slices[0].images
        np.testing.assert_array_equal(one[list(makers)[plus - 1]], one["input"] + plus)


def test_a_run_without_slices_shows_none():
    nothing = results()
    found = views_of([shown(runs={"output": nothing})], config())
    assert found.views == [] and found.left_out == ""


@pytest.mark.slow
def test_against_a_label_the_normal_dose_is_shown_beside_it():
    view = views_of([shown("v2")], config(batch_size=2)).views[0]
    one = view.slices[0]
    assert list(one.images) == [
        *("input", "gaussian", "output", "normal dose (gt), not aligned"),
        "IPv2's test label",
    ]
    assert one.reference == "IPv2's test label"
    np.testing.assert_array_equal(
        one.images["normal dose (gt), not aligned"], records(4)[one.index]["gt"]
    )
