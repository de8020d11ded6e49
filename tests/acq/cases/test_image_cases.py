"""Every case has its outcome where a run opens what it is given."""

import json

import pytest

from acq.check import check
from acq.evaluate_run import evaluate_run
from acq.quantize import open_inputs, quantize
from common.errors import UserError
from tests.acq.cases.command_config import command_config
from tests.acq.cases.image_cases import IMAGE_CASES


@pytest.mark.parametrize("case", IMAGE_CASES, ids=lambda case: case.name)
def test_case_has_its_outcome(tmp_path, monkeypatch, caplog, case):
    config = command_config(case.build(tmp_path), monkeypatch)
    with caplog.at_level("INFO"):
        if case.outcome == "refused":
            with pytest.raises(UserError) as error:
                check(config)
                open_inputs(config, tmp_path / "run")
            said = str(error.value)
        else:
            check(config)
            _, _, evaluation = open_inputs(config, tmp_path / "run")
            said = caplog.text
            assert all(text in said for text in evaluation.warnings)
            assert case.says or not evaluation.warnings
    for words in case.says:
        assert words in said
    for words in case.lacks:
        assert words not in said


def test_a_wrong_teacher_is_refused_before_the_folder_is_the_run_s(
    tmp_path, monkeypatch
):
    """So that the command with the mistake mended may use the same folder."""
    case = next(case for case in IMAGE_CASES if case.name == "labels_at_random")
    config = command_config(case.build(tmp_path), monkeypatch)
    config.train.batch_size = 8
    with pytest.raises(UserError, match="guessing one of 12"):
        quantize(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "run" / "generator").exists()


def test_task_evaluate_tells_a_wrong_teacher_and_goes_on(tmp_path, monkeypatch, caplog):
    case = next(case for case in IMAGE_CASES if case.name == "labels_at_random")
    config = command_config(case.build(tmp_path), monkeypatch)
    found = evaluate_run(config, tmp_path / "run")
    assert "guessing one of 12 classes" in caplog.text
    assert found["teacher"]["top1"] < 20
    assert found["teacher"]["statistics"]["distance"] < 0.2
    text = (tmp_path / "run" / "evaluation.json").read_text()
    assert json.loads(text) == found
