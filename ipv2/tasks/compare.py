"""Task compare: denoisers trained on differently composed pairs, side by side.

Each of `config.compare.models` (none: the config's own) is trained on each of
`config.compare.pairs`. Every training is a run of its own in `workdir/MODEL/PAIRS`,
with its checkpoints and results; interrupted, the command goes on with the one that was
not finished. Pairs that differ in the test label alone (Remove noise) share a training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from common.config import ConfigDict, hold_config, refuse_other_config
from common.devices import is_first_process
from common.errors import UserError
from common.files import write_atomically
from common.html_report import write_report
from common.results import finished_results, write_results
from common.workdir import hold_workdir
from ipv2.inference.trained import load_trained
from ipv2.measures.evaluation import prepared_slices
from ipv2.tasks import settings
from ipv2.tasks.check import check_config
from ipv2.tasks.evaluate import evaluate_export, evaluation_batch
from ipv2.tasks.figure import save_comparison
from ipv2.tasks.run_data import hold_data, refuse_other_data
from ipv2.tasks.sources import open_sources
from ipv2.tasks.tables import format_comparison, format_grid
from ipv2.tasks.train import FREE_TO_CHANGE, is_measured, train
from ipv2.training.denoiser import channels_of, make_denoise
from ipv2.training.stacks import Stacks

# Of `compare` alone: what is drawn and listed, not what is trained.
_WORDS = {
    "none": "pairs as they are",
    "v1": "IPv1",
    "v2": "IPv2",
    "no_background": "IPv2, no Remove Background",
    "no_add": "IPv2, no Add noise",
    "no_remove": "IPv2, no Remove noise",
    "aligned": "IPv2, outline aligned",
}
# The grid is what a comparison is made of.
_FREE_TO_CHANGE = tuple(key for key in FREE_TO_CHANGE if key != "compare")
Runs = dict[str, dict[str, dict[str, Any]]]


def compare(config: ConfigDict, workdir: Path) -> None:
    """Trains the grid of `config.compare`; writes tables, pictures and a page.

    Args:
      config: of a recipe; checked here.
      workdir: the run's folder.

    Raises:
      UserError, RunFailed, Interrupted: as `train`.
    """
    check_config(config)
    with hold_workdir(workdir, "task compare"):
        _compare(config, workdir)


def _compare(config: ConfigDict, workdir: Path) -> None:
    """The trainings and their report, in a folder that is held."""
    grid = configs_of(config)
    for by_pair in grid.values():
        for one in by_pair.values():
            check_config(one)
    refuse_other_config(config, workdir, free=_FREE_TO_CHANGE)
    # The data that all of them can be trained on.
    choosiest = max(
        (one for by_pair in grid.values() for one in by_pair.values()),
        key=settings.needs_spacing,
    )
    if finished_results(workdir, "compare", _is_comparison) is not None:
        refuse_other_data(choosiest, workdir)
        print(_comparison(workdir / "comparison.txt"))
        return
    sources = open_sources(choosiest)
    if not len(sources.held_out):
        raise UserError(
            "config.data.split: nobody is held out, so there is nothing to compare on. "
            "Give shares to train and test, (0.8, 0.1, 0.1) say."
        )
    if is_first_process():
        hold_config(config, workdir, free=_FREE_TO_CHANGE)
    hold_data(sources, workdir)
    runs: Runs = {}
    for model, by_pair in grid.items():
        runs[model] = {}
        for pair in by_pair:
            logging.info("%s, %s", model, _WORDS.get(pair, pair))
            runs[model][pair] = _run(by_pair, pair, workdir / model)
    if is_first_process():
        _report(config, grid, runs, workdir)


def _is_comparison(results: Mapping[str, Any]) -> bool:
    """Whether these are results by network and pairs."""
    return bool(results) and all(
        isinstance(by_pair, dict)
        and by_pair
        and all(isinstance(one, dict) and is_measured(one) for one in by_pair.values())
        for by_pair in results.values()
    )


def _comparison(path: Path) -> str:
    """The table of a complete run."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: damaged or gone ({error}). Give another --workdir."
        ) from error


def configs_of(config: ConfigDict) -> dict[str, dict[str, ConfigDict]]:
    """The config of every training, {model: {pairs: config}}."""
    grid: dict[str, dict[str, ConfigDict]] = {}
    for model in config.compare.models or (config.model.name,):
        grid[model] = {}
        for pair in config.compare.pairs:
            one = config.copy_and_resolve_references()
            with one.unlocked():
                if config.compare.models:
                    one.update(config.compare.zoo[model].to_dict())
                one.purify.update(config.compare.options[pair].to_dict())
            grid[model][pair] = one
    return grid


def _run(by_pair: Mapping[str, ConfigDict], pair: str, folder: Path) -> dict[str, Any]:
    """Trains on these pairs, or measures a training that differs in the label alone."""
    config = by_pair[pair]
    for earlier, other in by_pair.items():
        if earlier == pair:
            return train(config, folder / pair)
        if _same_training(config, other):
            break
    finished = finished_results(folder / pair, "compare", is_measured)
    if finished is not None:
        return finished
    results = evaluate_export(config, folder / earlier / "export")
    if is_first_process():
        write_results(folder / pair, results)
    return results


def _same_training(a: ConfigDict, b: ConfigDict) -> bool:
    """Whether two configs differ in nothing but the test label."""
    left, right = a.to_dict(), b.to_dict()
    for one in (left, right):
        del one["purify"]["remove_noise"]
    return left == right


def _report(
    config: ConfigDict,
    grid: Mapping[str, Mapping[str, ConfigDict]],
    runs: Runs,
    workdir: Path,
) -> None:
    """Writes tables, pictures and results."""
    tables = {
        model: format_comparison(
            {_WORDS.get(pair, pair): run for pair, run in by_pair.items()},
            title="trained on",
        )
        for model, by_pair in runs.items()
    }
    measured = all(
        "contour_mm" in r["output"] for by in runs.values() for r in by.values()
    )
    if config.compare.models and measured:
        text = format_grid(runs, _WORDS)
    else:
        text = "\n\n".join(tables.values())
    print(f"\n{text}")
    write_atomically(workdir / "comparison.txt", text + "\n")
    pictures = {}
    for model, by_pair in grid.items():
        picture = workdir / model / "comparison.png"
        draw(by_pair, workdir / model, picture)
        pictures[f"{model}, a test slice"] = picture.read_bytes()
    write_report(
        workdir / "report.html",
        title=f"{workdir.name}: {', '.join(runs)} on differently composed pairs",
        texts={
            "Results": text,
            **tables,
            "Config": (workdir / "config.json").read_text(encoding="utf-8"),
        },
        pictures=pictures,
    )
    write_results(workdir, runs)
    print(f"\n{workdir / 'report.html'}")


def draw(by_pair: Mapping[str, ConfigDict], folder: Path, path: Path) -> None:
    """Draws input, outputs and label of the test slice that shows the most lung.

    Args:
      by_pair: the trainings' configs, of one network.
      folder: holds an export in each training's folder.
      path: of the PNG.
    """
    config = next(iter(by_pair.values()))
    denoiser = settings.denoiser(config)
    sources = open_sources(config)
    test = sources.held_out
    stacks = Stacks(test, channels_of(denoiser.model))
    keys = ("lq", "gt", "truth", "spacing_mm", "slice")
    # One dataset's slices are of one kind of image: the first dataset has the say.
    first = test[0]["dataset"]
    places = [i for i in range(len(test)) if test[i]["dataset"] == first]
    records = (stacks[place] for place in places)
    slices = prepared_slices(
        ({key: one[key] for key in keys if key in one} for one in records),
        evaluation_batch(settings.label_params(config)),
        batch_size=config.evaluate.batch_size,
    )
    best = max(slices, key=lambda one: int(one["regions"]["lung"].sum()))
    stack = best["lq"][None]
    images = {"low dose": stack[0, ..., stack.shape[-1] // 2]}
    denoise = jax.jit(make_denoise(denoiser))
    for pair in by_pair:
        export = folder / pair / "export"
        if export.exists():  # those that differ in the label alone have none
            variables = load_trained(export).variables
            images[_WORDS.get(pair, pair)] = np.asarray(denoise(variables, stack)[0])
    reference = "truth" if "truth" in best else "label"
    images["IPv2 label"] = best["label"]
    if reference == "truth":
        images["truth"] = best["truth"]
    else:
        reference = "IPv2 label"
    captions = {
        name: f"RMSE {_lung_rmse_hu(image, images[reference], best):.0f} HU in the lung"
        for name, image in images.items()
        if name != reference
    }
    save_comparison(
        path, images, captions=captions, inset=_inset(best), reference=reference
    )


def _lung_rmse_hu(
    image: np.ndarray, reference: np.ndarray, slice_: Mapping[str, Any]
) -> float:
    error = (image - reference)[slice_["regions"]["lung"]]
    return float(np.sqrt(np.mean(np.square(error)))) if error.size else float("nan")


def _inset(slice_: Mapping[str, Any]) -> tuple[int, int, int]:
    """(top, left, side) of a square about the middle of the larger half of the lung."""
    lung = slice_["regions"]["lung"]
    height, width = lung.shape
    side = min(height, width) // 4
    left_half, right_half = lung[:, : width // 2].sum(), lung[:, width // 2 :].sum()
    half = np.zeros_like(lung)
    chosen = slice(0, width // 2) if left_half > right_half else slice(width // 2, None)
    half[:, chosen] = lung[:, chosen]
    rows, columns = np.nonzero(half if half.any() else np.ones_like(half))
    top = int(np.clip(np.median(rows) - side / 2, 0, height - side))
    left = int(np.clip(np.median(columns) - side / 2, 0, width - side))
    return top, left, side
