"""Errors of the user's network that only a run meets."""

import inspect

import pytest

from acq.tasks.registry import TASKS
from common.errors import UserError
from tests.acq import odd_networks
from tests.acq.quantize_config import make_config


@pytest.mark.slow
@pytest.mark.parametrize("task", ["evaluate", "quantize"])
def test_an_error_that_comes_late_still_ends_with_file_and_line(tmp_path, task):
    config = make_config(tmp_path)
    config.teacher.name = f"{odd_networks.__name__}:OnlyPairs"
    config.eval.batch_size = 16  # over four devices
    lines, first = inspect.getsourcelines(odd_networks.OnlyPairs)
    line = first + next(i for i, text in enumerate(lines) if "raise" in text)
    with pytest.raises(UserError, match="fails in this run: ") as error:
        TASKS[task](config, tmp_path / "run")
    place = f"{odd_networks.__file__}:{line}: RuntimeError: more than two images"
    assert place in str(error.value)


def test_a_name_that_is_no_text_is_told_by_the_config_s_check(tmp_path):
    config = make_config(tmp_path)
    with config.ignore_type():
        config.teacher.name = 18
    with pytest.raises(UserError, match=r"config\.teacher\.name: got 18"):
        TASKS["evaluate"](config, tmp_path)
