"""Evaluation of a denoiser on a split of a run's datasets."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from common.checkpoint import load_manifest
from common.config import ConfigDict
from common.devices import is_first_process, to_host
from common.errors import UserError
from common.files import write_atomically
from common.pipeline import Source
from common.progress import Progress
from common.typing import PyTree
from common.workdir import hold_workdir
from ipv2.measures.evaluation import evaluate_slices
from ipv2.purification.purify import PurifyParams, purify, regions
from ipv2.tasks import settings
from ipv2.tasks.check import check_config
from ipv2.tasks.exported import load_exported
from ipv2.tasks.sources import Sources, open_sources, require_even_slices
from ipv2.training.denoiser import Denoiser, make_denoise
from ipv2.training.stacks import Stacks
from ipv2.training.train_step import example_rngs


@functools.cache
def evaluation_batch(
    labelling: PurifyParams,
) -> Callable[[Any], dict[str, Any]]:
    """Returns a function from stacked records to the images that are measured.

    The label is IPv2's test label, the same for every way of training. Regions are
    those of the known truth where there is one, since it has no noise.

    Args:
      labelling: how the label is made, from `settings.label_params`.

    Returns:
      The same function for the same labelling, so that jit compiles it once.
    """

    def prepare(batch: Any) -> dict[str, Any]:
        stack = jnp.moveaxis(batch["lq"].astype(jnp.float32), 1, -1)
        middle = stack.shape[-1] // 2
        lq, gt = stack[..., middle], batch["gt"][:, middle].astype(jnp.float32)
        rngs = example_rngs(0, batch["slice"].astype(jnp.uint32))  # nothing is drawn
        label = purify(rngs, lq, gt, batch["spacing_mm"], labelling).gt_bar
        images = {"lq": stack, "label": label, "spacing_mm": batch["spacing_mm"]}
        if "truth" in batch:
            images["truth"] = batch["truth"].astype(jnp.float32)
        found = regions(images.get("truth", label))
        return images | {"regions": found._asdict()}

    return prepare


def evaluate(
    denoiser: Denoiser,
    variables: PyTree,
    source: Source,
    config: ConfigDict,
    *,
    name: str,
) -> dict[str, Any]:
    """Returns the metrics of a denoiser on a split, as `evaluate_slices` gives them.

    Args:
      denoiser: the network.
      variables: the network's variables.
      source: the records of the split.
      config: a checked IPv2 config, of which `evaluate` and `purify` count.
      name: the name of the work, for the progress line.
    """
    count = len(source)
    wanted = min(config.evaluate.slices or count, count)
    places = [round(i * count / wanted) for i in range(wanted)]
    keys = ("lq", "gt", "truth", "spacing_mm", "slice")

    stacks = Stacks(source, denoiser.slices)

    def slices() -> Iterator[dict[str, Any]]:
        with Progress(name, wanted, "slices") as progress:
            for place in places:
                record = stacks[place]
                yield {key: record[key] for key in keys if key in record}
                progress.update()

    return evaluate_slices(
        make_denoise(denoiser),
        to_host(variables),
        slices(),
        batch_size=config.evaluate.batch_size,
        label="ipv2",
        prepare=evaluation_batch(settings.label_params(config)),
    )


def evaluate_run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the network exported in `workdir` on the config's test split.

    Writes `workdir/evaluation.json`; `results.json` stays that of the training.

    Args:
      config: the config of a recipe; checked here. Its network does not count.
      workdir: the folder of a finished training run.

    Raises:
      UserError: the config is wrong, or the folder holds no exported network.
    """
    check_config(config)
    # First, so that no folder without a run is made or locked.
    load_manifest(workdir / "export")
    with hold_workdir(workdir, "task evaluate"):
        results = evaluate_export(config, workdir / "export")
        if is_first_process():
            path = workdir / "evaluation.json"
            write_atomically(path, json.dumps(results, indent=2) + "\n")
    return results


def evaluate_export(config: ConfigDict, export: Path) -> dict[str, Any]:
    """Returns the metrics of an exported network on the config's test split.

    Args:
      config: a checked IPv2 config; its network does not count.
      export: the folder of the exported network.

    Raises:
      UserError: the folder holds no exported network.
    """
    trained = load_exported(config, export)
    require_even_slices(config, trained.denoiser.slices)
    sources = open_sources(config)
    return evaluate_held_out(trained.denoiser, trained.variables, sources, config)


def evaluate_held_out(
    denoiser: Denoiser, variables: PyTree, sources: Sources, config: ConfigDict
) -> dict[str, Any]:
    """Returns the metrics on the slices held out, with datasets and seed.

    Args:
      denoiser: the network.
      variables: the network's variables.
      sources: the data of the run.
      config: a checked IPv2 config.

    Raises:
      UserError: nothing was held out.
    """
    if not len(sources.held_out):
        raise UserError(
            "config.data.split: nobody is held out, so there is nothing to evaluate "
            "on. Give a share to test: (0.0, 0.0, 1.0) evaluates on all."
        )
    results = evaluate(denoiser, variables, sources.held_out, config, name="test")
    return results | {"datasets": list(sources.names), "seed": config.seed}


def scalars_of(results: Mapping[str, Any], split: str) -> dict[str, float]:
    """Returns the metrics of the output as scalars named `split/metric_window`."""
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
