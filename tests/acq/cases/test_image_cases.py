"""Both tasks refuse a wrong teacher."""

import json

import pytest

from acq.tasks.evaluate import evaluate_run
from acq.tasks.quantize import quantize_run
from common.errors import UserError
from tests.acq.cases.command_config import command_config
from tests.acq.cases.image_cases import IMAGE_CASES


@pytest.mark.slow
def test_a_wrong_teacher_is_refused_before_the_folder_is_the_run_s(tmp_path):
    """So the corrected command may use the same folder."""
    case = next(case for case in IMAGE_CASES if case.name == "labels_at_random")
    config = command_config(case.recipe, case.build(tmp_path))
    config.train.batch_size = 8
    with pytest.raises(UserError, match="guessing one of 12"):
        quantize_run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "run" / "generator").exists()


def test_task_evaluate_tells_a_wrong_teacher_and_goes_on(tmp_path, caplog):
    case = next(case for case in IMAGE_CASES if case.name == "labels_at_random")
    config = command_config(case.recipe, case.build(tmp_path))
    found = evaluate_run(config, tmp_path / "run")
    assert "guessing one of 12 classes" in caplog.text
    assert found["teacher"]["top1"] < 20
    assert found["teacher"]["statistics"]["distance"] < 0.2
    text = (tmp_path / "run" / "evaluation.json").read_text()
    assert json.loads(text) == found
