"""Task export: a run's network as an ONNX file, or the authors' FFM as an export.

Writes the network of a run, `workdir/export`, as the ONNX file `model.onnx` beside it,
unless `config.model.weights` is given.

With weights it makes an export of what the authors of FFM trained. It reads
`config.model.weights`, a file of the published network's weights, and writes
`workdir/export`, as a training run does. Tasks denoise and evaluate, and
`ipv2.load_denoiser`, take it from there. The file is read as data: nothing in it is
executed.

The published network computes in windowed grey, see `ipv2.models.units`. It keeps the
input's HU outside of the window `config.model.window`.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
from absl import logging

from common import config as c
from common.checkpoint import MANIFEST, export_variables, load_manifest
from common.config import ConfigDict
from common.devices import is_first_process
from common.errors import UserError
from common.nested import flatten
from common.weights.files import read_weights
from common.workdir import first_in_the_way, hold_workdir
from ipv2.inference.trained import load_trained
from ipv2.models import published_ffm
from ipv2.models.units import WindowedGrey
from ipv2.tasks import settings
from ipv2.tasks.check import check_config
from ipv2.tasks.onnx_export import export_onnx
from ipv2.training.denoiser_spec import DenoiserSpec


def export(config: ConfigDict, workdir: Path) -> None:
    """Writes the run's network as ONNX, or the export of `config.model.weights`.

    Args:
      config: the config of a recipe. Without weights its network does not count.
      workdir: the folder of a finished training run; with weights as
        `export_weights`.

    Raises:
      UserError: as `export_onnx` and `export_weights`, or there is neither a run nor
        weights.
    """
    if config.model.weights:
        export_weights(config, workdir)
        return
    check_config(config)
    if not (workdir / "export" / MANIFEST).exists():
        raise UserError(
            f"{workdir} has no export of a training run to write as ONNX. Train first, "
            "with this --workdir and without --task, or name another --workdir. To "
            "make an export of the published FFM, give --config.model.weights=FILE"
        )
    export_onnx(workdir)


def export_weights(config: ConfigDict, workdir: Path) -> None:
    """Writes `workdir/export` from `config.model.weights`.

    The same command again finds its export and writes nothing.

    Args:
      config: the config of a recipe; checked here. `model` and `flow` count.
      workdir: an empty or new folder, or that of the same export.

    Raises:
      UserError: the config is wrong, the file does not hold the weights of the
        published network, or the workdir holds something else.
    """
    check_config(config, takes_weights=True)
    _check_network(config)
    window = WindowedGrey(
        centre_hu=float(config.model.window[0]), width_hu=float(config.model.window[1])
    )
    spec = dataclasses.replace(settings.denoiser_spec(config), unit=window)
    path, export = Path(config.model.weights), workdir / "export"
    variables = _read(path, spec)
    manifest = {
        "method": "ipv2",
        **spec.to_json(),
        "weights": {"file": path.name, "sha256": _hash(path)},
    }
    logging.info(
        "config.model.window: a network in %s. The published window is not known: give "
        "--config.model.window='(centre, width)' if yours is another",
        window.describe(),
    )
    if not is_first_process():
        return
    with hold_workdir(workdir, "task export"):
        if not _is_there(export, manifest):
            if (other := first_in_the_way(workdir)) is not None:
                raise UserError(
                    f"{workdir} holds another run or export: {other} is there. Give "
                    "another --workdir."
                )
            export_variables(export, variables, manifest)
        trained = load_trained(export)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    print(f"{count:,} parameters of {path} in {export}: {trained.describe()}")


def _check_network(config: ConfigDict) -> None:
    """Raises UserError unless the config describes the published network."""
    wanted = {"model.name": "ffm", "model.channels": 3, "flow.time_scale": 1.0}
    given = dict(flatten(config))
    problems = [
        f"{key}: got {given[key]!r}, accepted by task export: {value!r}, as published; "
        "configs/ipv2_ffm.py:authors sets it"
        for key, value in wanted.items()
        if given[key] != value
    ]
    if not config.model.weights:
        problems.append(
            "model.weights: task export needs a file of weights of the published FFM, "
            "--config.model.weights=FILE; exports of your own trainings are in RUN/"
            "export already"
        )
    c.refuse(problems)


def _read(path: Path, spec: DenoiserSpec) -> Any:
    """Returns the variables in a file of weights."""
    denoiser = spec.create()
    like = jax.eval_shape(lambda: denoiser.init(jax.random.key(0)))
    return published_ffm.to_variables(read_weights(path), like, source=str(path))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_there(export: Path, manifest: dict[str, Any]) -> bool:
    """Returns whether this export was made before."""
    if not (export / MANIFEST).exists():
        return False
    found = load_manifest(export)
    return all(found.get(key) == value for key, value in manifest.items())
