"""Reads a config from a command line like `launch.py`."""

import importlib
import sys
from collections.abc import Sequence
from unittest import mock

from absl import flags
from ml_collections import config_flags

from common.config import ConfigDict


def command_config(recipe: str, overrides: Sequence[str]) -> ConfigDict:
    """Returns the config of `PATH[:variants]` with overrides `--config.KEY=VALUE`."""
    path, _, variant = recipe.partition(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    command = ["launch.py", *overrides]
    values = flags.FlagValues()
    # ml_collections reads the overridden keys from there.
    with mock.patch.object(sys, "argv", command):
        config_flags.DEFINE_config_dict(
            "config", module.get_config(variant), flag_values=values
        )
        values(command)
    return values["config"].value
