"""Every case has its outcome where the teacher is checked and loaded."""

import sys

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from acq.check import check
from acq.teacher.loading import load_teacher
from common.errors import UserError
from configs import acq_r20_cifar10
from tests.acq.cases.weights_case import RECIPE
from tests.acq.cases.weights_cases import CASES, made_variables


def _config(keys, monkeypatch):
    """The recipe's config with keys of a command line, read as launch.py does."""
    assert f"{acq_r20_cifar10.__name__.replace('.', '/')}.py" == RECIPE
    values = flags.FlagValues()
    monkeypatch.setattr(sys, "argv", ["launch.py", *keys])
    config_flags.DEFINE_config_dict(
        "config", acq_r20_cifar10.get_config(), flag_values=values
    )
    values(sys.argv)
    return values["config"].value


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, id=case.name, marks=[pytest.mark.slow] if case.is_large else []
        )
        for case in CASES
    ],
)
def test_case_has_its_outcome(tmp_path, monkeypatch, case):
    config = _config(case.build(tmp_path), monkeypatch)
    if case.outcome == "right":
        check(config)
        teacher = load_teacher(config)
        jax.tree.map(
            np.testing.assert_array_equal,
            teacher.variables,
            made_variables(teacher.network),
        )
        return
    with pytest.raises(UserError) as error:
        check(config)
        load_teacher(config)
    message = str(error.value)
    for words in case.says:
        assert words in message, message
    for words in case.lacks:
        assert words not in message, message


def test_names_of_cases_are_of_one_case_each():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) > 50
