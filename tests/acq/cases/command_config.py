"""A case's config, read from a command line as `launch.py` does."""

import sys

from absl import flags
from ml_collections import config_flags

from common.config import ConfigDict
from configs import acq_r20_cifar10
from tests.acq.cases.run_case import RECIPE


def command_config(overrides, monkeypatch) -> ConfigDict:
    path, _, variant = RECIPE.partition(":")
    assert f"{acq_r20_cifar10.__name__.replace('.', '/')}.py" == path
    values = flags.FlagValues()
    monkeypatch.setattr(sys, "argv", ["launch.py", *overrides])
    config_flags.DEFINE_config_dict(
        "config", acq_r20_cifar10.get_config(variant), flag_values=values
    )
    values(sys.argv)
    return values["config"].value
