"""Task train: a denoiser on purified pairs, from a config to its results."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jaxtyping import Array

from common.checkpoint import Checkpoints, export_variables
from common.config import ConfigDict, as_json, to_steps
from common.devices import (
    is_first_process,
    per_process,
    pmap_input,
    pmap_step,
    to_host,
    wait_for_all,
)
from common.errors import UserError
from common.loop import Plan, fit
from common.pipeline import Source, train_batches
from common.results import write_results
from common.run import Run
from common.typing import Metrics, PyTree
from common.writers import MetricsWriter
from ipv2.datasets.registration import Registered
from ipv2.inference.shipped import shipped_export
from ipv2.inference.trained import Trained, find_export, load_trained
from ipv2.measures.evaluation import network_output
from ipv2.measures.filters import check_filters
from ipv2.measures.noise_level import soft_tissue_noise_hu
from ipv2.models import hash_code
from ipv2.tasks import facts, settings
from ipv2.tasks.check import check_config
from ipv2.tasks.detail import require_single_slices
from ipv2.tasks.distances import check_features
from ipv2.tasks.evaluate import References, evaluate, evaluate_held_out, scalars_of
from ipv2.tasks.held_out import record_splits
from ipv2.tasks.pages import write_run_page
from ipv2.tasks.references import evenly, references_of
from ipv2.tasks.result_files import SCHEMA_VERSION, write_files
from ipv2.tasks.rules import SHIPPED
from ipv2.tasks.run_data import hold_data, refuse_other_data
from ipv2.tasks.sources import (
    Sources,
    open_sources,
    require_even_slices,
    training_record,
)
from ipv2.tasks.tables import format_results
from ipv2.tasks.views import Shown
from ipv2.training.denoiser import Denoiser, make_denoise
from ipv2.training.pairs import PairParams
from ipv2.training.stacks import Stacks
from ipv2.training.train_step import (
    TrainState,
    create_state,
    example_rngs,
    make_examples,
    make_train_step,
    training_stacks,
)
from ipv2.volumes.noise_check import SMALLEST, TRAINED_NOISE

# Inputs whose noise is measured for the manifest.
_MEASURED = 64


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains, exports and evaluates; goes on with a run that was interrupted.

    Args:
      config: the config of a recipe; checked here.
      workdir: the run's folder.

    Returns:
      The content of `workdir/results.json`.

    Raises:
      UserError: the config or the input is wrong.
      RunFailed: a loss was not finite.
      Interrupted: a signal came; the checkpoint is written.
    """
    check_config(config)
    check_filters(config.evaluate.filters)
    check_features(config.evaluate.features)
    run = Run(config=as_json(config), workdir=workdir, free=settings.FREE_TO_CHANGE)
    with run.hold("train", is_measured) as finished:
        if finished is not None:
            refuse_other_data(config, workdir)
            return finished
        return _train(run, config)


def is_measured(results: Mapping[str, Any]) -> bool:
    """Returns whether these are the results of a training."""
    return "n_slices" in results and isinstance(results.get("datasets"), dict)


def _train(run: Run, config: ConfigDict) -> dict[str, Any]:
    """Trains in a folder that is held; returns the results."""
    started = time.monotonic()
    sources = _open_sources(config)
    plan = _plan(config.train, _steps_per_epoch(config.train, sources))
    share = _slices_of_this_process(config.train)
    references = references_of(sources, config)
    start = _start(config)
    # All inputs are open: from here on the folder is this run's.
    run.begin()
    hold_data(sources, run.workdir)
    denoiser = settings.denoiser(config)
    first = (
        denoiser.init(jax.random.key(config.seed))
        if start is None
        else jax.tree.map(jnp.asarray, start.variables)
    )
    state = _fit(config, denoiser, first, sources, references, plan, share, run.workdir)
    variables = to_host(state.variables)
    results = _measured(denoiser, variables, sources, config, references) | {
        "steps": plan.total,
        "seconds": round(time.monotonic() - started, 1),
    }
    if is_first_process():
        manifest = _manifest(config, sources, plan, start)
        if (noise := _trained_noise_hu(config, sources)) is not None:
            manifest[TRAINED_NOISE] = noise
        export_variables(run.workdir / "export", variables, manifest)
        text = format_results(results, title=run.workdir.name, full=True)
        write_files(run.workdir, "results", text, {(): results})
        _write_page(config, results, sources, denoiser, variables, run.workdir)
        write_results(run.workdir, results)
    wait_for_all("report")
    return results


def _start(config: ConfigDict) -> Trained | None:
    """The network that training goes on from; None for random weights.

    Raises:
      UserError: there is no such export, or it holds another network.
    """
    name = config.train.start
    if not name:
        return None
    trained = load_trained(shipped_export() if name == SHIPPED else find_export(name))
    wanted = settings.denoiser_spec(config)
    if trained.spec.create_network() != wanted.create_network():
        raise UserError(
            f"config.train.start: {name} holds "
            f"{trained.spec.to_json()['model']}, but config.model asks for "
            f"{wanted.to_json()['model']}; accepted: an export of the same network"
        )
    logging.info("training goes on from %s, SHA-256 %s", name, trained.sha256)
    return trained


def _slices_per_step(train: ConfigDict) -> int:
    return train.batch_size // train.patches_per_slice


def _steps_per_epoch(train: ConfigDict, sources: Sources) -> float:
    return len(sources.train) / _slices_per_step(train)


def _plan(train: ConfigDict, steps_per_epoch: float) -> Plan:
    """The durations of `config.train` in steps."""
    total, log, evaluate_, save = (
        to_steps(train[key], steps_per_epoch, f"train.{key}")
        for key in ("duration", "log", "evaluate", "save")
    )
    return Plan(total=total, log=log, evaluate=evaluate_, save=save)


def _slices_of_this_process(train: ConfigDict) -> int:
    """The slices of a step that this process trains on.

    Raises:
      UserError: the devices cannot share a step's patches, or cut them into equal
        parts.
    """
    devices, batch_size = jax.device_count(), train.batch_size
    if train.accumulate > 1 and batch_size % (devices * train.accumulate):
        raise UserError(
            f"config.train.accumulate: got {train.accumulate}, accepted: a divisor of "
            f"a device's share of config.train.batch_size ({batch_size} patches over "
            f"{devices} devices)"
        )
    return per_process(_slices_per_step(train), "train.batch_size")


def _fit(
    config: ConfigDict,
    denoiser: Denoiser,
    variables: PyTree,
    sources: Sources,
    references: References,
    plan: Plan,
    share: int,
    workdir: Path,
) -> TrainState:
    """The state after the last step, from the newest checkpoint or from none."""
    epoch = _steps_per_epoch(config.train, sources)
    optimizer = settings.optimizer(config, plan.total, epoch)
    state = create_state(variables, optimizer, ema=config.train.ema > 0)
    logging.info(
        "%s: %s parameters, %d steps of %d slices, %.1f an epoch, %d %s device(s)",
        config.model.name,
        f"{sum(x.size for x in jax.tree.leaves(state.params)):,}",
        plan.total,
        _slices_per_step(config.train),
        epoch,
        jax.device_count(),
        jax.default_backend(),
    )
    stacks = Stacks(_training_source(config, sources), denoiser.slices)
    shape = np.shape(stacks[0]["lq"])

    def validate(state: TrainState) -> dict[str, float]:
        measured = evaluate(
            denoiser,
            state.variables,
            sources.val,
            config,
            references,
            name="validate",
            full=False,
        )
        return scalars_of(measured, "val")

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return fit(
            state,
            _make_p_step(config, denoiser, optimizer, height=shape[1]),
            train_batches(
                stacks,
                seed=config.seed,
                batch_size=share,
                transform=training_record(
                    shape, config.train.shrink, share * jax.process_count()
                ),
            ),
            plan,
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(workdir, after_step=after),
            evaluate=validate if len(sources.val) else None,
        )


def _training_source(config: ConfigDict, sources: Sources) -> Source:
    """The slices to train on, registered if the config says so."""
    if config.purify.version != "registered":
        return sources.train
    folder = Path(config.data.cache) / "registered"
    registered = Registered(sources.train, folder)
    if is_first_process():
        registered.prepare()
    wait_for_all("registered slices")
    return registered


def _make_p_step(
    config: ConfigDict,
    denoiser: Denoiser,
    optimizer: optax.GradientTransformation,
    *,
    height: int,
) -> Callable[[PyTree, PyTree], tuple[PyTree, Metrics]]:
    """The step over all devices: from slices to examples, from examples to a state.

    Slices of `height` pixels that were shrunk have pairs of their own.
    """
    train = config.train
    make = {
        height // shrink: pmap_input(
            make_examples(
                settings.pair_params(config, target_dose),
                patch=train.patch,
                patches_per_slice=train.patches_per_slice,
                seed=config.seed,
            )
        )
        for shrink, target_dose in _sizes(config)
    }
    step = pmap_step(
        make_train_step(
            denoiser, optimizer, accumulate=train.accumulate, ema_decay=train.ema
        )
    )
    return lambda state, shard: step(state, make[shard["lq"].shape[-2]](shard))


def _sizes(config: ConfigDict) -> list[tuple[int, float]]:
    """How slices are shrunk, with the dose of the targets of each."""
    return list(zip(config.train.shrink, config.noise.target_dose, strict=True))


def _manifest(
    config: ConfigDict, sources: Sources, plan: Plan, start: Trained | None
) -> dict[str, Any]:
    """What the export says of the network and its training."""
    code, keys = hash_code(config.model.name), as_json(config)
    # A path of this machine; `started_from` says which network it was.
    del keys["train"]["start"]
    return {
        "method": "ipv2",
        **settings.denoiser_spec(config).to_json(),
        **({} if code is None else {"code_sha256": code}),
        "step": plan.total,
        "seed": config.seed,
        "datasets": list(sources.names),
        **record_splits(config, sources.names),
        **({} if start is None else {"started_from": start.identity}),
        "trained_with": {
            section: keys[section]
            for section in ("purify", "noise", "train", "optimizer")
        },
    }


def _trained_noise_hu(config: ConfigDict, sources: Sources) -> list[float] | None:
    """The noise of the inputs: 5th and 95th percentile; None if none can be measured.

    Of inputs as training makes them, from slices that are evenly spread.
    """
    places = evenly(range(len(sources.train)), min(_MEASURED, len(sources.train)))
    records = [sources.train[place] for place in places]
    shape = np.shape(records[0]["lq"])
    found = [
        _input_noise_hu(config, record, draw, shrink, target_dose)
        for shrink, target_dose in _sizes(config)
        if min(shape) // shrink >= SMALLEST
        for draw, record in enumerate(records)
    ]
    known = [noise for noise in found if math.isfinite(noise)]
    return np.percentile(known, (5, 95)).round(1).tolist() if known else None


def _input_noise_hu(
    config: ConfigDict,
    record: Mapping[str, Any],
    draw: int,
    shrink: int,
    target_dose: float,
) -> float:
    """The noise of one input; nan if it cannot be measured."""
    stack = {**record, **{key: record[key][None] for key in ("lq", "gt")}}
    as_example = training_record(np.shape(stack["lq"]), (shrink,))
    example = as_example(stack | {"draw": np.uint32(draw)})
    params = settings.pair_params(config, target_dose)
    return float(_soft_tissue_noise_hu(config.seed, example, params))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _soft_tissue_noise_hu(seed: int, example: PyTree, params: PairParams) -> Array:
    """The noise of the input that training makes of one example."""
    shard = jax.tree.map(lambda leaf: leaf[None], example)
    rngs = example_rngs(seed, shard.pop("draw"))
    inputs, *_ = training_stacks(rngs, shard, params)
    return soft_tissue_noise_hu(inputs[..., 0])[0]


def _write_page(
    config: ConfigDict,
    results: Mapping[str, Any],
    sources: Sources,
    denoiser: Denoiser,
    variables: PyTree,
    workdir: Path,
) -> None:
    train = config.train
    write_run_page(
        workdir / "report.html",
        results,
        config=config,
        sources=sources,
        shown=Shown(
            name="",
            runs={"output": results},
            source=sources.held_out,
            channels=denoiser.slices,
            make_outputs=network_output(make_denoise(denoiser), variables),
        ),
        network=config.model.name,
        told={
            "Network": facts.network_words(config, variables),
            "Pairs": facts.pairs_words(as_json(config)["purify"]),
            "Training": f"{results['steps']:,} steps of {train.batch_size} patches of "
            f"{train.patch} pixels, loss {train.loss}, rate "
            f"{config.optimizer.learning_rate:g} ({config.optimizer.schedule})",
        },
        title=f"{workdir.name}: {config.model.name}",
        metrics={"Training": workdir / "metrics.jsonl"},
    )


def _open_sources(config: ConfigDict) -> Sources:
    """The data.

    Raises:
      UserError: they hold nothing to train on.
    """
    require_even_slices(config, config.model.channels)
    require_single_slices(config, config.model.channels)
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
    denoiser: Denoiser,
    variables: PyTree,
    sources: Sources,
    config: ConfigDict,
    references: References,
) -> dict[str, Any]:
    """The numbers on what was held out; if nothing was, only what the run was on."""
    if len(sources.held_out):
        return evaluate_held_out(denoiser, variables, sources, config, references)
    logging.warning("nobody is held out (config.data.split): nothing is measured")
    return {
        "schema_version": SCHEMA_VERSION,
        "n_slices": 0,
        "datasets": {},
        "slices": [],
        "dataset_names": list(sources.names),
        "seed": config.seed,
    }
