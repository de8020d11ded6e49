"""The tasks of IPv2, by the name that `--task` takes."""

from collections.abc import Callable
from pathlib import Path

from common.config import ConfigDict
from ipv2.compare import compare
from ipv2.purify_folder import purify_folder
from ipv2.train import evaluate_run, train

TASKS: dict[str, Callable[[ConfigDict, Path], object]] = {
    "train": train,
    "compare": compare,
    "evaluate": evaluate_run,
    "purify": purify_folder,
}
