import numpy as np
import pytest

from acq.diagnosis.complaints import complaints
from acq.training.step_parts import GeneratorLoss
from tests.acq.made_up_diagnosis import make_diagnosis, make_variety

LOSS = GeneratorLoss(center_weight=5.0)


def _only(diagnosis, loss=LOSS):
    (text,) = complaints(diagnosis, loss)
    return text


def test_a_healthy_generator_is_left_in_peace():
    assert complaints(make_diagnosis(), LOSS) == []


def test_samples_that_are_all_equal_are_one_complaint():
    same = make_variety(overall=0.012, in_class=(0.01,) * 5, in_pair=0.0)
    text = _only(make_diagnosis(variety=same))
    assert text.startswith("All samples are nearly equal") and "1.2%" in text
    assert "pair_weight (now 0, which leaves the term out)" in text


@pytest.mark.parametrize(
    ("in_class", "named", "most"),
    [
        ((0.9, 0.05, 0.9, 0.9, np.nan), "of class 1 are", "5.0%"),
        ((0.9, 0.05, 0.9, 0.02, 0.09), "of classes 1, 3 and 4 are", "9.0%"),
    ],
)
def test_collapsed_classes_are_named(in_class, named, most):
    variety = make_variety(in_class=in_class, in_pair=0.0)
    loss = GeneratorLoss(pair_weight=0.5)
    text = _only(make_diagnosis(variety=variety), loss)
    assert named in text and f"at most {most}" in text and "(now 0.5)" in text


def test_an_ignored_latent_is_told_from_a_collapsed_class():
    text = _only(make_diagnosis(variety=make_variety(in_pair=0.03)))
    assert "ignores its latent" in text and "3.0%" in text


def test_what_was_not_measured_is_no_complaint():
    nothing = make_variety(overall=None, in_class=(np.nan,) * 5, in_pair=None)
    still = np.zeros((100, 2))
    diagnosis = make_diagnosis(variety=nothing, requested=still, achieved=still)
    assert complaints(diagnosis, LOSS) == []


def test_dead_classes_are_named():
    text = _only(make_diagnosis(recognised=np.array([20, 0, 15, 20, 0])))
    assert "none of the 40 samples of classes 1 and 4, but 55.0% of all" in text
    assert "config.generator.class_weight (now 1)" in text


def test_a_young_generator_is_only_told_what_time_will_not_mend():
    young = make_diagnosis(recognised=np.zeros(5, int), achieved=np.zeros((100, 2)))
    assert len(complaints(young, LOSS)) == 2
    assert complaints(young, LOSS, settled=False) == []
    same = make_variety(overall=0.012, in_class=(0.01,) * 5, in_pair=0.0)
    collapsed = make_diagnosis(variety=same)
    assert len(complaints(collapsed, LOSS, settled=False)) == 1


def test_a_class_of_few_samples_is_not_called_dead():
    drawn = np.array([22, 22, 21, 20, 15])
    diagnosis = make_diagnosis(drawn=drawn, recognised=np.array([20, 15, 15, 20, 0]))
    assert complaints(diagnosis, LOSS) == []


def test_many_classes_are_counted():
    recognised = np.where(np.arange(30) < 13, 0, 20)
    diagnosis = make_diagnosis(drawn=np.full(30, 20), recognised=recognised)
    assert "classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more" in _only(diagnosis)


def test_recognition_by_chance_is_one_complaint():
    diagnosis = make_diagnosis(recognised=np.array([0, 20, 0, 2, 0]))
    text = _only(diagnosis, GeneratorLoss(class_weight=0.0))
    assert "recognises 22.0% of the samples" in text and "for 20.0%" in text
    assert "class_weight (now 0, which leaves the term out)" in text


def test_with_a_thousand_classes_more_steps_are_the_advice():
    diagnosis = make_diagnosis(drawn=np.ones(1000, int), recognised=np.zeros(1000, int))
    text = _only(diagnosis, GeneratorLoss(class_weight=0.02))
    assert "Give the generator more steps" in text and "1,000 classes" in text
    assert "class_weight (now 0.02) made it worse" in text and "Raise" not in text


@pytest.mark.parametrize(
    ("achieved", "words"),
    [
        (lambda requested: 0.02 * requested, ("R^2 of the achieved centres is 0.04",
                                              "ignores the centre", "move by 0.02")),
        (lambda requested: -requested, ("is -3.00", "ignores the centre", "by -1.00")),
        (lambda requested: requested + 0.5, ("They follow", "by 1.00", "reach")),
    ],
)  # fmt: skip
def test_centers_that_are_not_reached_are_a_complaint(achieved, words):
    diagnosis = make_diagnosis(achieved=achieved(make_diagnosis().requested))
    text = _only(diagnosis)
    assert all(word in text for word in (*words, "center_weight is 5"))
    assert complaints(diagnosis, GeneratorLoss()) == []  # nothing was asked for


def test_a_diverged_generator_is_the_only_complaint():
    nan = np.full((100, 2), np.nan)
    diagnosis = make_diagnosis(finite=0.75, achieved=nan, recognised=np.zeros(5, int))
    text = _only(diagnosis)
    assert text.startswith("25 of 100 samples") and "learning_rate" in text
