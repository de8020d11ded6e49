import dataclasses

import numpy as np
import pytest

from acq.teacher.evaluation import evaluate_teacher, refuse_wrong_teacher
from common.errors import UserError
from tests.acq.cases.coloured_teacher import (
    CLASSES,
    coloured_data,
    coloured_teacher,
)


def _evaluate(teacher, data, source="weights"):
    return evaluate_teacher(teacher, data, source=source, batch_size=64)


def _with_other_labels(data):
    return dataclasses.replace(data, labels=(data.labels + 1) % CLASSES)


def test_the_right_teacher_is_reported_and_not_warned_of(caplog):
    with caplog.at_level("INFO", logger="absl"):
        found = _evaluate(coloured_teacher(), coloured_data())
    assert found.warnings == () and found.refusal == ""
    refuse_wrong_teacher(found)
    correct = found.accuracy.correct
    assert correct >= 142
    assert found.to_json() == {
        "top1": 100 * correct / 144,
        "correct": correct,
        "statistics": found.statistics.to_json(),
    }
    assert f"of 144 images ({144 - correct} wrong)" in caplog.text
    assert f"distance {found.statistics.distance:.2f}" in caplog.text


@pytest.mark.parametrize("source", ["random", "digits"])
def test_a_teacher_that_the_run_makes_is_not_judged(source):
    found = _evaluate(coloured_teacher(), _with_other_labels(coloured_data()), source)
    assert found.accuracy.correct == 0
    assert found.warnings == () and found.refusal == ""
    assert (found.statistics is None) == (source == "random")


def test_too_few_images_are_warned_of_and_not_refused(caplog):
    data = _with_other_labels(coloured_data(of_class=3))
    found = _evaluate(coloured_teacher(), data)
    assert len(data) == 36 and not found.refusal
    assert found.warnings == (
        "the teacher gets 0 of 36 evaluation images right: too few to tell it from "
        "guessing (46 do)",
    )
    assert found.warnings[0] in caplog.text


@pytest.mark.slow
def test_logits_that_are_no_numbers_are_refused_whatever_the_number_of_images():
    teacher = coloured_teacher()
    teacher.variables["params"]["head"]["bias"] = np.full(CLASSES, np.nan, np.float32)
    found = _evaluate(teacher, coloured_data(of_class=1))
    with pytest.raises(UserError, match=r"teacher\.npz: no image has finite logits"):
        refuse_wrong_teacher(found)


def test_one_class_for_all_images_is_warned_of():
    teacher = coloured_teacher()
    teacher.variables["params"]["head"]["bias"][4] = 1e6
    found = _evaluate(teacher, coloured_data())
    text = "the teacher gives class 4 for all 144 images of 12 classes"
    assert text in found.warnings and text in found.refusal
