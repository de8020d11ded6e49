"""Runs a task of a recipe.

  python launch.py --config configs/NAME.py[:variant[,variant...]]
      [--task TASK] [--workdir DIR] [--config.key=value ...]

Recipes:  configs/quickstart.py    purify, train and evaluate on embedded data
          configs/ipv2_redcnn.py   IPv2 with RED-CNN; --config.data.root=DIR for your CT
          configs/ipv2_ffm.py      IPv2 with its authors' flow model
          configs/ipv2_zoo.py      eight networks on six kinds of pairs
          configs/simulate.py      your CT at a lower dose; --config.data.input=DIR
          configs/acq_digits.py    quantize a classifier of digits, all embedded
          configs/acq_r20_cifar10.py  your CIFAR ResNet; --config.teacher.weights=FILE
          configs/acq_r18.py, acq_r50.py, acq_mbv2.py, acq_efficientnet_lite0.py
                                   ImageNet networks of the hub
Tasks:    ipv2: train, compare, evaluate, export, denoise, purify, simulate, calibrate;
          the recipe's own without --task. Trained networks denoise your CT:
          --task denoise --config.denoise.input=DIR --config.denoise.output=DIR
          acq: quantize, evaluate, export
          export writes ONNX files: docs/export.md
Variants: each recipe's docstring lists them; every recipe has `smoke` (seconds).

The same command again resumes an interrupted run, or says that it is complete.
Exit status: 0 done; 1 the run failed or was interrupted; 2 the command, config or
input is wrong; 3 done, but volumes were skipped, with --config.strict=True.
"""

import difflib
import importlib
import logging as std_logging
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from common.config import ConfigDict, refuse_unknown_keys
from common.errors import Incomplete, Interrupted, RunFailed, UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe: configs/NAME.py[:variant[,variant...]].", lock_config=True
)
_TASK = flags.DEFINE_string("task", None, "Task; that of the recipe if not given.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Default: runs/NAME[-variant...].")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "host:port of process 0; 'auto' on TPU pods and Slurm."
)
_PROCESSES = flags.DEFINE_integer("processes", 1, "Number of processes.")
_PROCESS = flags.DEFINE_integer("process", 0, "Number of this process, from 0.")


def _recipe_of(argv: Sequence[str]) -> str | None:
    """Returns the value of --config in a command line; None without one."""
    for place, word in enumerate(argv):
        if match := re.fullmatch(r"--?config(?:=(.*))?", word, re.DOTALL):
            return match[1] or (argv[place + 1] if place + 1 < len(argv) else None)
    return None


def _load_recipe(recipe: str) -> ConfigDict:
    """Returns the config of `PATH[:variant]`, before any override.

    Raises:
      UserError: no such file, or not a recipe.
    """
    path, _, variant = recipe.partition(":")
    if not Path(path).is_file():
        there = [str(p) for p in sorted(Path("configs").glob("*.py"))]
        close = difflib.get_close_matches(path, there, n=3) or there
        raise UserError(f"--config: no file {path!r}; did you mean {', '.join(close)}?")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise UserError(f"--config: {path} has no function get_config(variant)")
    return get_config(variant) if variant else get_config()


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; prints the help if it has --help.

    Raises:
      UserError: a flag or override is wrong; the message names the closest ones.
    """
    if {"--help", "-h", "--helpshort", "-help"} & set(argv):
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)
    recipe = _recipe_of(argv)
    if recipe is None:
        raise UserError("--config is missing: give a recipe, see --help")
    overrides = [re.match(r"--?(?:no)?config\.([^=]+)", word) for word in argv]
    refuse_unknown_keys(_load_recipe(recipe), [m[1] for m in overrides if m])
    try:
        left = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from error
    if len(left) > 1:
        raise UserError(f"not a flag: {' '.join(left[1:])}; see --help")
    return left


def _default_workdir(recipe: str) -> Path:
    path, _, variant = recipe.partition(":")
    return Path("runs", "-".join([Path(path).stem, *filter(None, variant.split(","))]))


def main(argv: Sequence[str]) -> None:
    """Starts the processes and hands the config to its task."""
    # Here, so that a wrong command fails before jax is loaded.
    from common.devices import start_processes

    start_processes(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    config = _CONFIG.value
    tasks = importlib.import_module(f"{config.method}.tasks.registry").TASKS
    task = _TASK.value or config.task
    if task not in tasks:
        raise UserError(f"--task: got {task!r}, accepted: {', '.join(tasks)}")
    recipe = _recipe_of(sys.argv)
    assert recipe is not None  # _parse_flags refuses a command without it
    workdir = Path(_WORKDIR.value) if _WORKDIR.value else _default_workdir(recipe)
    tasks[task](config, workdir)


def _log_plainly() -> None:
    """Logs messages of this project as plain lines, and of libraries warnings only."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(None)
    handler.addFilter(
        lambda record: record.levelno >= std_logging.WARNING or is_ours(record.pathname)
    )


def is_ours(path: str) -> bool:
    """Returns whether a source file is the project's, and not of a .venv inside it."""
    root = Path(__file__).parent
    ours = ("acq", "common", "ipv2", "launch.py")
    return any(Path(path).is_relative_to(root / name) for name in ours)


def run() -> None:
    """Runs `main`; prints the errors of `common.errors` as messages."""
    _log_plainly()
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Incomplete as error:
        print(f"incomplete: {error}", file=sys.stderr)
        sys.exit(3)
    except (RunFailed, Interrupted) as error:
        print(f"stopped: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run()
