"""The verdict, word by word."""

import pytest

from ipv2.report.numbers import dataset_numbers, joined_numbers
from ipv2.report.verdict import paired_verdict, verdict
from ipv2.tasks.compare_runs import differences_of
from tests.ipv2.report.made import (
    NOTHING,
    dataset,
    numbers,
    of_psnr,
    results,
    undefined,
)

BY = "By PSNR in the lung window, with 95 % intervals, "
PATIENTS = [*"abcdef"]
INPUT = [20.0, 21.0, 22.0, 23.0, 24.0, 25.0]


def said(found, network="cnn10", **doses):
    return verdict(dataset_numbers(found), {"output": network}, doses)


def plus(values, *differences):
    """The values, with these differences in turn."""
    return [value + differences[i % len(differences)] for i, value in enumerate(values)]


def test_a_network_that_beats_filter_and_input():
    found = of_psnr(
        patients=PATIENTS,
        input=INPUT,
        gaussian=plus(INPUT, 3.0),
        tv=plus(INPUT, 4.0),
        output=plus(INPUT, 5.5),
    )
    assert said(found, ct=0.02) == (
        BY + "on ct (6 slices of 6 patients at 2 % of the dose) cnn10 is better than "
        "the best filter (tv) by 1.50 dB (1.50 to 1.50) and better than the input by "
        "5.50 dB (5.50 to 5.50)."
    )


def test_a_network_that_loses_to_a_filter():
    found = of_psnr(
        patients=PATIENTS,
        input=INPUT,
        tv=plus(INPUT, 4.0),
        output=plus(INPUT, 2.0),
        bias={"bone": -51.26, "soft": 12.0},
    )
    assert said(found) == (
        BY + "on ct (6 slices of 6 patients) cnn10 is worse than the best filter (tv) "
        "by 2.00 dB (2.00 to 2.00) and better than the input by 2.00 dB (2.00 to "
        "2.00), with a bias of -51.3 HU in bone."
    )


def test_an_interval_that_holds_0_is_no_better():
    found = of_psnr(
        patients=PATIENTS,
        input=INPUT,
        tv=plus(INPUT, 4.0),
        output=plus(INPUT, 3.0, 5.0),
    )
    text = said(found)
    assert text.startswith(
        BY + "on ct (6 slices of 6 patients) cnn10 is no better than the best filter "
        "(tv) with +0.00 dB (-"
    )
    assert "better than the input by 4.00 dB" in text


def test_pairing_tells_apart_what_means_do_not():
    """Slices differ by 5 dB, the images by 0.1 dB on each."""
    found = of_psnr(patients=PATIENTS, input=INPUT, output=plus(INPUT, 0.1))
    block = found["datasets"]["ct"]
    low, _ = block["interval"]["output"]["psnr_db"]["lung"]
    assert low < block["input"]["psnr_db"]["lung"]
    assert "better than the input by 0.10 dB" in said(found)


def test_slices_of_one_patient_say_nothing_of_others():
    found = of_psnr(input=INPUT, output=plus(INPUT, 1.0))
    assert said(found) == (
        BY + "on ct (6 slices of 1 patient) cnn10 is better than the input by 1.00 dB "
        "(1.00 to 1.00), of one patient, which says nothing of others."
    )


@pytest.mark.parametrize(
    ("patients", "ending"),
    [
        ("ppp", ", but 3 slices of one patient allow no conclusion."),
        ("ppq", ", but 2 patients allow no conclusion."),
    ],
)
def test_few_patients_or_slices_allow_no_conclusion(patients, ending):
    found = of_psnr(patients=[*patients], input=INPUT[:3], output=plus(INPUT[:3], 1.0))
    text = said(found)
    assert "better than the input by 1.00 dB" in text and text.endswith(ending)


def test_one_slice_has_no_interval_and_is_not_told_apart():
    found = of_psnr(input=[20.0], tv=[21.0], output=[23.0])
    assert said(found) == (
        BY + "on ct (1 slice of 1 patient) cnn10 is not told apart from the best "
        "filter (tv) with +2.00 dB (no interval) and not told apart from the input "
        "with +3.00 dB (no interval), but one slice allows no conclusion."
    )


@pytest.mark.parametrize("label", ["v1", "v2"])
def test_a_label_ranks_no_network(label):
    found = of_psnr(label=label, input=INPUT, output=plus(INPUT, 9.0))
    assert said(found) == (
        f"On ct (6 slices of 1 patient) no network can be ranked, since the reference "
        f"is {label}, a label and not the truth."
    )


def test_every_data_set_has_its_part_of_the_sentence():
    one = dataset(
        {"input": numbers(INPUT, made=False), "output": numbers(plus(INPUT, 1.0))},
        patients=PATIENTS,
    )
    other = dataset(
        {
            "input": numbers(INPUT, aligned=False),
            "output": numbers(INPUT, aligned=False),
        },
        label="v2",
        name="mine",
    )
    text = said(results(ct=one, mine=other))
    assert text.count(".") == text.count("1.00") + 1  # points of numbers, and the end
    first, second = text.split("; ")
    assert first.startswith(BY + "on ct (6 slices of 6 patients) cnn10 is better than")
    assert second.startswith("on mine (6 slices of 1 patient) no network can be ranked")


def test_without_numbers_nothing_is_claimed():
    images = {
        "input": undefined(numbers(INPUT, made=False)),
        "output": undefined(numbers(INPUT)),
    }
    assert said(results(ct=dataset(images))) == (
        BY + "on ct (6 slices of 1 patient) no output has a number."
    )
    assert said(NOTHING) == (
        "Nothing was measured, because nobody is held out (config.data.split)."
    )


def test_of_several_trainings_the_best_is_compared_with_the_next():
    def run(gain):
        return of_psnr(
            patients=PATIENTS,
            input=INPUT,
            tv=plus(INPUT, 4.0),
            output=plus(INPUT, gain),
        )

    runs = {"IPv1": run(3.0), "IPv2": run(5.0), "pairs as they are": run(1.0)}
    assert verdict(joined_numbers(runs), {}, {}) == (
        BY + "on ct (6 slices of 6 patients) IPv2, the best of 3, is better than the "
        "best filter (tv) by 1.00 dB (1.00 to 1.00), better than the input by 5.00 dB "
        "(5.00 to 5.00) and better than the next (IPv1) by 2.00 dB (2.00 to 2.00)."
    )


def test_paired_runs_differ_from_the_first():
    a = of_psnr(patients=PATIENTS, input=INPUT, output=INPUT)
    b = of_psnr(patients=PATIENTS, input=INPUT, output=plus(INPUT, 0.5))
    c = of_psnr(patients=PATIENTS, input=INPUT, output=plus(INPUT, -0.5))
    assert paired_verdict(differences_of({"a": a, "b": b, "c": c})) == (
        BY + "on ct (6 slices of 6 patients) b is better than a by 0.50 dB (0.50 to "
        "0.50) and c is worse than a by 0.50 dB (0.50 to 0.50)."
    )
    label = of_psnr(label="v2", input=INPUT, output=INPUT)
    assert paired_verdict(differences_of({"a": label, "b": label})).startswith(
        "On ct (6 slices of 1 patient) no network can be ranked"
    )
    one = of_psnr(input=[20.0], output=[21.0])
    del one["slices"][0]["output"]["psnr_db"]
    assert paired_verdict(differences_of({"a": one, "b": one})) == (
        BY + "on ct (1 slice of 1 patient) b is not comparable with a, for want of "
        "slices with both numbers, but one slice allows no conclusion."
    )
