"""Runs tasks in this process and records what they print and how they end.

The recipes are small forms of those of `configs`. The network adds `SHIFT_HU` to every
pixel, so the right result of `denoise` is known; `simulate` takes few views.
"""

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from absl import logging as absl_logging

from common.checkpoint import export_variables
from common.config import ConfigDict
from common.errors import Interrupted, RunFailed, UserError
from configs import ipv2_redcnn
from configs import simulate as simulate_recipe
from ipv2.tasks import settings
from ipv2.tasks.registry import TASKS

SHIFT_HU = 10
_NETWORK = {"name": "redcnn", "width": 1, "kernel_size": 3}
_ROOT = Path(__file__).parents[3]
_OURS = tuple(str(_ROOT / name) for name in ("acq", "common", "ipv2"))


class Ran(NamedTuple):
    """How a task ended, and all its messages.

    Attributes:
      end: done; refused, with a UserError; stopped; or another error, a traceback.
      text: everything printed and logged, and the error.
    """

    end: Literal["done", "refused", "stopped", "traceback"]
    text: str

    @property
    def last(self) -> str:
        """Returns the line that says how it ended."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        return f"{self.end}: {lines[-1].strip()[:200]}" if lines else self.end


def run(
    task: str, config: ConfigDict, workdir: Path, tasks: Mapping[str, Any] = TASKS
) -> Ran:
    """Runs a task to any end and returns it."""
    said = io.StringIO()
    end = "done"
    with _captured(said):
        try:
            tasks[task](config, workdir)
        except UserError as error:
            end, words = "refused", f"error: {error}"
        except (RunFailed, Interrupted) as error:
            end, words = "stopped", f"stopped: {error}"
        except Exception as error:  # any other error is a finding
            end = "traceback"
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            words = f"{type(error).__name__} at {place}: {error}"
        else:
            words = ""
    if "Traceback" in said.getvalue():
        end = "traceback"
    return Ran(end, f"{said.getvalue()}\n{words}")


def run_keys(
    task: str, workdir: Path, keys: Mapping[str, Any], *, recipe: str = "smoke"
) -> Ran:
    """Runs a task of the small recipe with some keys set.

    A key that does not exist ends as a command would: refused.
    """
    config = simulate_config() if task == "simulate" else ipv2_redcnn.get_config(recipe)
    try:
        config.update_from_flattened_dict(dict(keys))
    except (KeyError, TypeError, ValueError) as error:
        return Ran("refused", f"error: no such key: {error}")
    return run(task, config, workdir)


def simulate_config() -> ConfigDict:
    """Returns the recipe of `simulate` with few views."""
    config = simulate_recipe.get_config()
    config.noise.views = 16
    config.batch_size = 2
    return config


def export_shift(workdir: Path) -> None:
    """Exports a network that adds SHIFT_HU to its input."""
    config = ipv2_redcnn.get_config()
    with config.unlocked():
        config.model.update(_NETWORK)
    variables = settings.denoiser(config).init(jax.random.key(0))
    variables = jax.tree.map(lambda leaf: 0 * leaf, variables)
    variables = jax.tree_util.tree_map_with_path(_shifting, variables)
    manifest = {
        "method": "ipv2",
        **settings.denoiser_spec(config).to_json(),
        "unit": "HU/1000",
        "step": 1,
        "trained_with": {"purify": config.purify.to_dict()},
    }
    with _captured(io.StringIO()):
        export_variables(workdir / "export", variables, manifest)


def _shifting(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    names = [entry.key for entry in path]
    return leaf + (SHIFT_HU / 1000 if names[-2:] == ["decoder5", "bias"] else 0)


@contextlib.contextmanager
def _captured(said: io.StringIO) -> Iterator[None]:
    """Collects everything printed or logged in `said`."""
    handler = logging.StreamHandler(said)
    handler.addFilter(
        lambda record: (
            record.levelno >= logging.WARNING or record.pathname.startswith(_OURS)
        )
    )
    loggers = [logging.getLogger(name) for name in ("absl", "py.warnings")]
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        absl_logging.set_verbosity(verbosity)
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
