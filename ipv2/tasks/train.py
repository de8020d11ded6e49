"""Trains a denoiser on purified pairs: the run, from a config to its results."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from common.checkpoint import Checkpoints, export_variables
from common.config import ConfigDict, hold_config, refuse_other_config, to_steps
from common.devices import is_first_process, per_process, pmap_input, pmap_step, to_host
from common.errors import UserError
from common.html_report import curves_png, write_report
from common.loop import Plan, fit
from common.pipeline import train_batches
from common.results import finished_results, write_results
from common.typing import PyTree
from common.workdir import hold_workdir
from common.writers import MetricsWriter
from ipv2.inference.trained import UNIT
from ipv2.models import hash_code
from ipv2.tasks import settings
from ipv2.tasks.check import check_config
from ipv2.tasks.evaluate import evaluate, evaluate_held_out, scalars_of
from ipv2.tasks.run_data import hold_data, refuse_other_data
from ipv2.tasks.sources import (
    Sources,
    open_sources,
    require_even_slices,
    training_record,
)
from ipv2.tasks.tables import format_results
from ipv2.training.denoiser import Denoiser, channels_of
from ipv2.training.stacks import Stacks
from ipv2.training.train_step import (
    TrainState,
    create_state,
    make_examples,
    make_train_step,
)

# What a resumed run may change: nothing that decides its parameters.
FREE_TO_CHANGE = (
    *("task", "strict", "data.cache", "data.multiframe"),
    *("purify.output", "purify.overwrite"),
    *("compare", "denoise"),
)


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains, exports and evaluates; or goes on with it; or says that it is done.

    Args:
      config: of a recipe; checked here.
      workdir: the run's folder.

    Returns:
      What `workdir/results.json` holds.

    Raises:
      UserError: the config or the input is wrong.
      RunFailed: a loss was not finite.
      Interrupted: a signal came; the checkpoint is written.
    """
    check_config(config)
    with hold_workdir(workdir, "task train"):
        refuse_other_config(config, workdir, free=FREE_TO_CHANGE)
        if (finished := finished_results(workdir, "train", is_measured)) is not None:
            refuse_other_data(config, workdir)
            return finished
        return _train(config, workdir)


def is_measured(results: Mapping[str, Any]) -> bool:
    """Whether these are the results of a training."""
    return "n_slices" in results


def _train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """The run, in a folder that is held."""
    started = time.monotonic()
    sources = _open_sources(config)
    settings_train = config.train
    slices_a_step = settings_train.batch_size // settings_train.patches_per_slice
    epoch = len(sources.train) / slices_a_step

    def steps(key: str) -> int:
        return to_steps(settings_train[key], epoch, f"train.{key}")

    plan = Plan(
        total=steps("duration"),
        log=steps("log"),
        evaluate=steps("evaluate"),
        save=steps("save"),
    )
    _check_parts(settings_train.batch_size, settings_train.accumulate)
    share = per_process(slices_a_step, "train.batch_size")
    # All inputs are open: from here on the folder is this run's.
    if is_first_process():
        hold_config(config, workdir, free=FREE_TO_CHANGE)
    hold_data(sources, workdir)
    denoiser = settings.denoiser(config)
    optimizer = settings.optimizer(config, plan.total, epoch)
    state = create_state(
        denoiser.init(jax.random.key(config.seed)),
        optimizer,
        ema=settings_train.ema > 0,
    )
    logging.info(
        "%s: %s parameters, %d steps of %d slices, %.1f an epoch, %d %s device(s)",
        config.model.name,
        f"{sum(x.size for x in jax.tree.leaves(state.params)):,}",
        plan.total,
        slices_a_step,
        epoch,
        jax.device_count(),
        jax.default_backend(),
    )
    make = pmap_input(
        make_examples(
            None if config.purify.version == "none" else settings.purify_params(config),
            patch=settings_train.patch,
            patches_per_slice=settings_train.patches_per_slice,
            seed=config.seed,
        )
    )
    step = pmap_step(
        make_train_step(
            denoiser,
            optimizer,
            accumulate=settings_train.accumulate,
            ema_decay=settings_train.ema,
        )
    )
    stacks = Stacks(sources.train, channels_of(denoiser.model))

    def validate(state: TrainState) -> dict[str, float]:
        measured = evaluate(
            denoiser, state.variables, sources.val, config, name="validate"
        )
        return scalars_of(measured, "val")

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = fit(
            state,
            lambda state, shard: step(state, make(shard)),
            train_batches(
                stacks,
                seed=config.seed,
                batch_size=share,
                transform=training_record(np.shape(stacks[0]["lq"])),
            ),
            plan,
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(workdir, after_step=after),
            evaluate=validate if len(sources.val) else None,
        )
    variables = to_host(state.variables)
    results = _measured(denoiser, variables, sources, config) | {
        "steps": plan.total,
        "seconds": round(time.monotonic() - started, 1),
    }
    if is_first_process():
        code = hash_code(config.model.name)
        manifest = {
            "method": "ipv2",
            **settings.denoiser_spec(config).to_json(),
            **({} if code is None else {"code_sha256": code}),
            "unit": UNIT,
            "step": plan.total,
            "seed": config.seed,
            "datasets": list(sources.names),
            "trained_with": {
                key: json.loads(config[key].to_json_best_effort())
                for key in ("purify", "noise", "train", "optimizer")
            },
        }
        export_variables(workdir / "export", variables, manifest)
        write_report(
            workdir / "report.html",
            title=f"{workdir.name}: {config.model.name}",
            texts={
                "Results": format_results(results),
                "Data": (workdir / "data.json").read_text(encoding="utf-8"),
                "Config": (workdir / "config.json").read_text(encoding="utf-8"),
            },
            pictures={
                "Training": curves_png(
                    workdir / "metrics.jsonl", ("train/loss", "train/gradient_norm")
                )
            },
        )
        write_results(workdir, results)
    return results


def _open_sources(config: ConfigDict) -> Sources:
    """The data, known to hold something to train on."""
    require_even_slices(config, config.model.channels)
    named = config.data.val_patients or config.data.test_patients
    given = config.data.root or config.data.normal_dose
    # Before a long build.
    if given and not named and not config.data.split[0]:
        raise UserError(f"nothing to train on: {_NO_SHARE.format(config.data.split)}")
    sources = open_sources(config)
    if not len(sources.train):
        raise UserError(
            "nothing to train on: all patients are held out, or left out (the lines "
            "above say why). Change config.data.split, config.data.val_patients or "
            "config.data.test_patients."
        )
    return sources


_NO_SHARE = (
    "config.data.split is {}. Give train a share, (0.8, 0.1, 0.1) say; all of an "
    "external test set is evaluated with --task evaluate."
)


def _measured(
    denoiser: Denoiser, variables: PyTree, sources: Sources, config: ConfigDict
) -> dict[str, Any]:
    """The metrics on what was held out; without any, that nothing was measured."""
    if len(sources.held_out):
        return evaluate_held_out(denoiser, variables, sources, config)
    logging.warning("nobody is held out (config.data.split): nothing is measured")
    return {"n_slices": 0, "datasets": list(sources.names), "seed": config.seed}


def _check_parts(batch_size: int, accumulate: int) -> None:
    """Raises UserError unless every device can cut its patches into equal parts."""
    devices = jax.device_count()
    if accumulate > 1 and batch_size % (devices * accumulate):
        raise UserError(
            f"config.train.accumulate: got {accumulate}, accepted: a divisor of a "
            f"device's share of config.train.batch_size ({batch_size} patches over "
            f"{devices} devices)"
        )
