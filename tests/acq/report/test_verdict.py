import pytest

from acq.report.verdict import (
    best_data_free,
    evaluation_verdict,
    quantization_verdict,
)
from tests.acq.report.made_up_run import results, without_images


def test_the_verdict_has_the_numbers_of_the_results():
    text = quantization_verdict(results())
    assert text.startswith("W4A3 gets 89.50 % of 200 images right: -2.00 points")
    assert "against the float teacher's 91.50 %" in text
    assert "and +4.50 points" in text
    assert "85.00 % of the best rounding without data ('rounded, ranges from" in text
    assert text.count("paired, McNemar's p = ") == 2
    # 8 against 4 images show nothing, 12 against 3 do.
    assert text.count("no difference shown") == 1
    assert text.index("no difference shown") < text.index("85.00")
    assert text.count(". ") == text.count("\n") == 0 and text.endswith(".")


def test_real_images_are_not_without_data():
    assert best_data_free(results()) == "generated"
    alone = results()["baselines"]["real"]
    assert best_data_free(results(baselines={"real": alone})) is None


def test_without_baselines_the_verdict_says_so():
    text = quantization_verdict(results(baselines={}))
    assert text.endswith("; no rounding without data was measured.")


def test_without_pairs_it_says_unpaired():
    run = results()
    for found in (run["quantized"], *run["baselines"].values()):
        found.pop("only_quantized_right")
        found.pop("only_teacher_right", found.pop("only_baseline_right", None))
    text = quantization_verdict(run)
    assert text.count("unpaired") == 2 and "McNemar" not in text
    assert "-2.00 points" in text and "+4.50 points" in text


@pytest.mark.parametrize(
    ("agreement", "said"),
    [(98.5, "it gives 98.50 % of the last samples"), (None, "no step was logged")],
)
def test_without_images_it_tells_the_agreement_on_samples(agreement, said):
    run = without_images() | {"agreement_on_samples": agreement}
    text = quantization_verdict(run)
    assert said in text and "top-1 is unknown" in text


def test_a_tiny_p_is_not_0():
    run = results()
    run["quantized"] |= {"only_teacher_right": 60, "only_quantized_right": 1}
    assert "McNemar's p < 0.0001" in quantization_verdict(run)


def test_an_evaluation_without_an_export_tells_of_the_teacher():
    run = {key: results()[key] for key in ("n", "teacher")}
    text = evaluation_verdict(run, "")
    assert "91.50 % of 200 images" in text and "no quantized network" in text
    both = run | {"quantized": results()["quantized"]}
    assert evaluation_verdict(both, "W4A3").startswith("W4A3 gets 89.50 %")
