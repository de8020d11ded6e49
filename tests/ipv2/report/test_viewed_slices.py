"""Which slices are shown."""

import dataclasses

import numpy as np
import pytest

from ipv2.report.numbers import dataset_numbers, joined_numbers
from ipv2.report.viewed_slices import (
    SeenSlice,
    Wanted,
    choose_slices,
    viewed_slice,
    which_fit,
)
from tests.ipv2.report.made import dataset, numbers, of_psnr, results, undefined


def of_images(label="truth", **images):
    made = {"input": numbers([20.0] * 5, made=False)} | images
    return dataset_numbers(results(ct=dataset(made, label=label)))[0]


def chosen(found):
    return [(one.index, one.role) for one in choose_slices(found).choices]


def test_worst_median_and_best_by_the_output_s_psnr():
    found = of_psnr(input=[20.0] * 5, output=[25.0, 23.0, 27.0, 21.0, 26.0])
    one = dataset_numbers(found)[0]
    assert chosen(one) == [(3, "worst"), (0, "median"), (2, "best")]
    assert choose_slices(one).rule == (
        "Chosen by the output's PSNR in the lung window, among slices that show lung."
    )


@pytest.mark.parametrize(
    ("psnr", "expected"),
    [
        ([25.0], [(0, "only slice")]),
        ([25.0, 24.0], [(1, "worst"), (0, "best")]),
        ([24.0, 24.0, 24.0], [(0, "worst"), (1, "median"), (2, "best")]),
    ],
)
def test_few_slices_are_shown_once_each(psnr, expected):
    found = dataset_numbers(of_psnr(input=[20.0] * len(psnr), output=psnr))[0]
    assert chosen(found) == expected


def test_slices_without_lung_are_left_out():
    image = numbers([20.0, 30.0, 25.0, 10.0])
    image["regions"]["lung"]["bias_hu"] = np.array([1.0, 1.0, 1.0, np.nan])
    images = {"input": image, "output": image}
    one = dataset_numbers(results(ct=dataset(images)))[0]
    assert chosen(one) == [(0, "worst"), (2, "median"), (1, "best")]


def test_without_lung_anywhere_the_body_decides_and_it_is_said():
    output = numbers([1.0, 2.0, 3.0], lung=False)
    output["regions"]["body"]["bias_hu"] = np.array([0.0, 3.0, 0.0])
    output["regions"]["body"]["noise_sd_hu"] = np.array([4.5, 4.0, 1.0])
    images = {"input": numbers([1.0, 2.0, 3.0], lung=False), "output": output}
    one = dataset_numbers(results(ct=dataset(images)))[0]
    # RMSE over the body: 4.5, 5, 1.
    assert chosen(one) == [(1, "worst"), (0, "median"), (2, "best")]
    assert choose_slices(one).rule == (
        "No slice shows lung (100 pixels or more), so they were chosen by the output's "
        "RMSE over the body."
    )


def test_constant_images_without_lung_or_body_are_chosen_by_the_rmse():
    output = numbers([10.0, 30.0, 20.0], lung=False)
    output["regions"] = undefined(output["regions"])
    images = {"input": output, "output": output}
    one = dataset_numbers(results(ct=dataset(images)))[0]
    assert chosen(one) == [(0, "worst"), (2, "median"), (1, "best")]
    assert "no slice shows lung or body" in choose_slices(one).rule.lower()


def test_without_an_aligned_reference_the_label_decides():
    found = of_psnr(label="v2", input=[20.0] * 3, output=[21.0, 25.0, 23.0])
    one = dataset_numbers(found)[0]
    assert chosen(one) == [(0, "worst"), (2, "median"), (1, "best")]
    assert "RMSE against the label, since no reference is aligned" in (
        choose_slices(one).rule
    )


def test_without_any_number_slices_are_spread():
    output = undefined(numbers([20.0] * 5))
    one = of_images(output=output)
    assert chosen(one) == [(0, "slice"), (2, "slice"), (4, "slice")]
    assert choose_slices(one).rule.startswith("No number ranks the slices")


def test_of_several_outputs_the_mean_counts():
    runs = {
        "a": of_psnr(input=[20.0] * 3, output=[21.0, 25.0, 26.0]),
        "b": of_psnr(input=[20.0] * 3, output=[29.0, 23.0, 26.0]),
    }
    one = joined_numbers(runs)[0]
    assert chosen(one) == [(1, "worst"), (0, "median"), (2, "best")]
    assert "the outputs' mean PSNR" in choose_slices(one).rule


def test_the_first_of_every_group_comes_before_the_second_of_any():
    wanted = [Wanted(group, rank, 6) for group in range(2) for rank in range(3)]
    assert which_fit(wanted, 36) == [True] * 6
    assert which_fit(wanted, 27) == [True, True, False, True, True, False]
    assert which_fit(wanted, 20) == [True, True, False, True, False, False]
    assert which_fit(wanted, 5) == [False] * 6


def seen(**changes):
    hu = np.array([[-1000.4, 40.6], [3071.0, 40000.0]])
    one = SeenSlice(
        index=1,
        role="worst",
        images={"input": hu, "output": hu, "truth": hu},
        reference="truth",
        lung=np.zeros((2, 2), bool),
        pixel_mm=0.7,
    )
    return dataclasses.replace(one, **changes)


def test_a_viewed_slice_has_whole_hu_and_the_numbers_of_the_results():
    found = of_psnr(input=[20.0, 21.0], output=[22.0, 23.456])
    one = viewed_slice(dataset_numbers(found)[0], seen())
    assert one.name == "ct, p, slice 1" and one.role == "worst"
    assert one.images["output"].tolist() == [[-1000, 41], [3071, 32767]]
    assert list(one.images) == ["input", "output", "truth"]
    assert one.facts == {
        "input": "PSNR lung window 21.00 dB, RMSE 79.0 HU, bias in lung +1.0 HU",
        "output": "PSNR lung window 23.46 dB, RMSE 76.5 HU, bias in lung +1.0 HU",
    }


def test_numbers_that_are_not_defined_are_not_told():
    images = {
        "input": numbers([20.0, 20.0], made=False),
        "output": undefined(numbers([20.0, 20.0])),
    }
    one = dataset_numbers(results(ct=dataset(images)))[0]
    assert "output" not in viewed_slice(one, seen()).facts


def test_against_a_label_only_the_rmse_is_told():
    found = of_psnr(label="v2", input=[20.0, 21.0], output=[22.0, 23.0])
    one = viewed_slice(dataset_numbers(found)[0], seen())
    assert one.facts["output"] == "RMSE against v2 77.0 HU"
