"""Trains a denoiser on purified pairs: the step, the state, the run.

Every step takes whole low-dose and normal-dose slices in HU. On device it purifies
them, with noise drawn anew, crops patches, and takes one optimiser step. An example's
randomness comes from its number in the stream (`draw`), so a run does not depend on
how many devices share it.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import linen as nn
from jaxtyping import Array, Key, UInt32

from common.checkpoint import (
    Checkpoints,
    export_variables,
    load_manifest,
    load_variables,
)
from common.config import ConfigDict, hold_config, to_steps
from common.devices import AXIS, is_first_process, per_process, pmap_step, to_host
from common.files import write_atomically
from common.html_report import curves_png, write_report
from common.loop import Plan, fit
from common.pipeline import Source, train_batches
from common.progress import Progress
from common.typing import Metrics, PyTree
from common.writers import MetricsWriter
from ipv2 import settings
from ipv2.evaluate import evaluate_slices, format_results, make_denoise
from ipv2.losses import create_loss
from ipv2.models.blocks import hu_to_unit
from ipv2.patches import random_patches
from ipv2.purification import PurifyParams, purify, regions
from ipv2.sources import open_sources, training_record

# What a resumed run may change: nothing that decides its parameters.
FREE_TO_CHANGE = ("task", "data.cache", "purify.output", "purify.overwrite", "compare")


class TrainState(flax.struct.PyTreeNode):
    """What a step changes.

    Attributes:
      step: steps done, int32 scalar.
      params: the network's, float32.
      opt_state: the optimiser's.
    """

    step: PyTree
    params: PyTree
    opt_state: PyTree


def create_params(model: nn.Module, seed: int) -> PyTree:
    """Returns the network's initial parameters, float32.

    Args:
      model: takes and gives `b h w 1`; its weights do not depend on h and w.
      seed: of the initial weights.
    """
    image = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    return model.lazy_init(jax.random.key(seed), image)["params"]


def create_state(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.int32(0), params=params, opt_state=optimizer.init(params)
    )


def example_rngs(seed: int, draw: UInt32[Array, "b"]) -> Key[Array, "b"]:
    """Returns a key per example, from its number in the stream alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(draw)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    purification: PurifyParams | None,
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    patch: int,
    patches_per_slice: int,
    seed: int,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Returns the pure step, to be pmapped.

    Args:
      model: the denoiser, in network units.
      optimizer: makes the steps.
      purification: how a training pair is composed; None trains on pairs as they are.
      loss: of prediction and target, in network units.
      patch: height and width of a patch.
      patches_per_slice: patches cropped from each slice.
      seed: of the noise and the patches.

    Returns:
      `train_step(state, shard)`; the shard holds `lq`, `gt` (`b h w`, HU), `spacing_mm`
      (`b 2`) and `draw` (`b`).
    """

    def train_step(state: TrainState, shard: Any) -> tuple[TrainState, Metrics]:
        rngs = jax.vmap(jax.random.split)(example_rngs(seed, shard["draw"]))
        noise_rngs, patch_rngs = rngs[:, 0], rngs[:, 1]
        lq, gt = (shard[key].astype(jnp.float32) for key in ("lq", "gt"))
        if purification is not None:
            spacing_mm = shard["spacing_mm"]
            lq = purify(noise_rngs, lq, gt, spacing_mm, purification).lq_bar
        slices = hu_to_unit(jnp.stack([lq, gt], axis=-1))
        patches = random_patches(
            patch_rngs, slices, size=patch, count=patches_per_slice
        )

        def loss_of(params: PyTree) -> jax.Array:
            denoised = model.apply({"params": params}, patches[..., :1])
            return loss(cast(jax.Array, denoised), patches[..., 1:])

        value, gradient = jax.value_and_grad(loss_of)(state.params)
        value, gradient = jax.lax.pmean((value, gradient), AXIS)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return state, metrics

    return train_step


@functools.cache
def evaluation_batch(
    labelling: PurifyParams,
) -> Callable[[Any], dict[str, Any]]:
    """Returns what turns stacked records into what `evaluate_slices` measures.

    The label is IPv2's test label, the same for every way of training. Regions are
    those of the known truth, where there is one: it has the least noise to mistake.

    Args:
      labelling: how the label is made, from `settings.label_params`.

    Returns:
      The same function for the same labelling, so that jit knows it again.
    """

    def prepare(batch: Any) -> dict[str, Any]:
        lq, gt = (batch[key].astype(jnp.float32) for key in ("lq", "gt"))
        rngs = example_rngs(0, batch["slice"].astype(jnp.uint32))  # nothing is drawn
        label = purify(rngs, lq, gt, batch["spacing_mm"], labelling).gt_bar
        images = {"lq": lq, "label": label}
        if "truth" in batch:
            images["truth"] = batch["truth"].astype(jnp.float32)
        found = regions(images.get("truth", label))
        return images | {"regions": found._asdict()}

    return prepare


def evaluate(
    model: nn.Module,
    params: PyTree,
    source: Source,
    config: ConfigDict,
    *,
    name: str,
) -> dict[str, Any]:
    """Returns the metrics of a denoiser on a split, as `evaluate_slices` gives them.

    Args:
      model: the denoiser.
      params: its parameters.
      source: records of the split.
      config: a checked IPv2 config; `evaluate` and `purify` are read.
      name: of the split, for the progress line.
    """
    count = len(source)
    wanted = min(config.evaluate.slices or count, count)
    places = [round(i * count / wanted) for i in range(wanted)]
    keys = ("lq", "gt", "truth", "spacing_mm", "slice")

    def slices() -> Iterator[dict[str, Any]]:
        with Progress(name, wanted, "slices") as progress:
            for place in places:
                record = source[place]
                yield {key: record[key] for key in keys if key in record}
                progress.update()

    return evaluate_slices(
        make_denoise(model),
        {"params": to_host(params)},
        slices(),
        batch_size=config.evaluate.batch_size,
        label="ipv2",
        prepare=evaluation_batch(settings.label_params(config)),
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
    started = time.monotonic()
    settings.check(config)
    hold_config(config, workdir, free=FREE_TO_CHANGE)
    results_path = workdir / "results.json"
    if results_path.exists():
        results = json.loads(results_path.read_text(encoding="utf-8"))
        logging.info("%s is complete: %s", workdir, results_path)
        return results

    sources = open_sources(config)
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
    model = settings.denoiser(config)
    optimizer = settings.optimizer(config, plan.total, epoch)
    state = create_state(create_params(model, config.seed), optimizer)
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
    step = make_train_step(
        model,
        optimizer,
        None if config.purify.version == "none" else settings.purify_params(config),
        loss=create_loss(settings_train.loss),
        patch=settings_train.patch,
        patches_per_slice=settings_train.patches_per_slice,
        seed=config.seed,
    )

    def validate(state: TrainState) -> dict[str, float]:
        measured = evaluate(model, state.params, sources.val, config, name="validate")
        return scalars_of(measured, "val")

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = fit(
            state,
            pmap_step(step),
            train_batches(
                sources.train,
                seed=config.seed,
                batch_size=per_process(slices_a_step, "train.batch_size"),
                transform=training_record(np.shape(sources.train[0]["lq"])),
            ),
            plan,
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(workdir, after_step=after),
            evaluate=validate if len(sources.val) else None,
        )
    params = to_host(state.params)
    test = sources.test if len(sources.test) else sources.val
    results = evaluate(model, params, test, config, name="test")
    results |= {
        "datasets": list(sources.names),
        "seed": config.seed,
        "steps": plan.total,
        "seconds": round(time.monotonic() - started, 1),
    }
    if is_first_process():
        manifest = {
            "method": "ipv2",
            "model": config.model.to_dict(),
            "unit": "HU/1000",
        }
        export_variables(workdir / "export", {"params": params}, manifest)
        write_report(
            workdir / "report.html",
            title=f"{workdir.name}: {config.model.name}",
            texts={
                "Results": format_results(results),
                "Config": (workdir / "config.json").read_text(encoding="utf-8"),
            },
            pictures={
                "Training": curves_png(
                    workdir / "metrics.jsonl", ("train/loss", "train/gradient_norm")
                )
            },
        )
        # Last, so that a folder with results is a complete run.
        write_atomically(results_path, json.dumps(results, indent=2) + "\n")
    return results


def evaluate_run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the network exported in `workdir` on the config's test split.

    Writes `workdir/evaluation.json`; `results.json` stays that of the training.

    Args:
      config: of a recipe; checked here. The network is the exported one's.
      workdir: of a finished training run.

    Raises:
      UserError: the config is wrong, or the folder holds no exported network.
    """
    settings.check(config)
    manifest = load_manifest(workdir / "export")
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model = ConfigDict(manifest["model"])
    model = settings.denoiser(config)
    like = jax.eval_shape(lambda: create_params(model, config.seed))
    params = load_variables(workdir / "export", {"params": like})["params"]
    sources = open_sources(config)
    test = sources.test if len(sources.test) else sources.val
    results = evaluate(model, params, test, config, name="test")
    results |= {"datasets": list(sources.names), "seed": config.seed}
    if is_first_process():
        path = workdir / "evaluation.json"
        write_atomically(path, json.dumps(results, indent=2) + "\n")
    return results


def scalars_of(results: Mapping[str, Any], split: str) -> dict[str, float]:
    """Returns an evaluation's output numbers named `split/metric_window`."""
    output = results["output"]
    quality = {
        f"{split}/{metric}_{window}": value
        for metric in ("psnr_db", "ssim", "rmse_hu")
        for window, value in output[metric].items()
    }
    noise = {
        f"{split}/{key}_{region}": values[key]
        for region, values in output["regions"].items()
        for key in ("noise_sd_hu", "bias_hu")
        if values[key] is not None
    }
    return quality | noise
