"""Task compare: trains denoisers on differently composed pairs and compares them.

Each of `config.compare.models` (of none, `config.model`) is trained on each of
`config.compare.pairs`. Every training is a run in `workdir/MODEL/PAIRS`, with its
checkpoints and results. A command that was interrupted goes on with the training that
was not finished. Pairs that differ in the test label alone (Remove noise) share a
training.

Filters without training are measured once, for all trainings. So the trainings measure
none: `evaluate.filters` of their configs is ().
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from common.config import ConfigDict, as_json
from common.devices import is_first_process, to_host, wait_for_all
from common.errors import UserError
from common.files import write_atomically
from common.results import finished_results, write_results
from common.run import Run
from ipv2.inference.trained import load_trained
from ipv2.measures.evaluation import network_output, prepared_slices
from ipv2.measures.filters import check_filters
from ipv2.tasks import settings
from ipv2.tasks.check import check_config
from ipv2.tasks.compare_runs import compare_runs
from ipv2.tasks.distances import check_features
from ipv2.tasks.evaluate import References, evaluate_export, evaluate_filters
from ipv2.tasks.facts import CAPTIONS
from ipv2.tasks.figure import save_comparison
from ipv2.tasks.pages import write_comparison_page
from ipv2.tasks.references import KEYS, Reference, preparation, references_of
from ipv2.tasks.result_files import write_files
from ipv2.tasks.run_data import hold_data, refuse_other_data
from ipv2.tasks.sources import Sources, open_sources
from ipv2.tasks.tables import format_comparison, format_grid, has_places
from ipv2.tasks.train import is_measured, train
from ipv2.tasks.views import Shown
from ipv2.training.denoiser import make_denoise
from ipv2.training.stacks import Stacks

# As of a training, but `config.compare` decides which trainings are compared.
_FREE_TO_CHANGE = tuple(key for key in settings.FREE_TO_CHANGE if key != "compare")
# The config and the results of every training, by network and by pairs.
Grid = dict[str, dict[str, ConfigDict]]
Runs = dict[str, dict[str, dict[str, Any]]]


def compare(config: ConfigDict, workdir: Path) -> None:
    """Trains the grid of `config.compare`; writes tables, pictures and a page.

    With `config.compare.runs` it trains nothing: see `compare_runs`.

    Args:
      config: the config of a recipe; checked here.
      workdir: the run's folder.

    Raises:
      UserError, RunFailed, Interrupted: as `train`.
    """
    check_config(config)
    if config.compare.runs:
        return compare_runs(config, workdir)
    check_filters(config.evaluate.filters)
    check_features(config.evaluate.features)
    grid = configs_of(config)
    configs = [one for by_pair in grid.values() for one in by_pair.values()]
    for one in configs:
        check_config(one)
    # The data that all of them can be trained on.
    choosiest = max(configs, key=lambda one: settings.pair_params(one).needs_spacing)
    run = Run(config=as_json(config), workdir=workdir, free=_FREE_TO_CHANGE)
    with run.hold("compare", _is_comparison) as finished:
        if finished is not None:
            refuse_other_data(choosiest, workdir)
            print(_read_table(workdir / "comparison.txt"))
            return
        sources = open_sources(choosiest)
        if not len(sources.held_out):
            raise UserError(
                "config.data.split: nobody is held out, so there is nothing to compare "
                "on. Give shares to train and test, (0.8, 0.1, 0.1) say."
            )
        run.begin()
        hold_data(sources, workdir)
        references = references_of(sources, config)
        runs = _train_all(grid, workdir)
        filters = evaluate_filters(sources, config, references)
        runs = _with_filters(runs, filters, grid, config)
        # All processes read exports, since readers wait for each other; the first one
        # wrote them.
        wait_for_all("exports")
        shown = {
            model: _shown(model, by_pair, runs[model], sources, workdir, len(grid) > 1)
            for model, by_pair in grid.items()
        }
        if is_first_process():
            _write_outputs(config, grid, runs, sources, references, shown, workdir)
        wait_for_all("report")


def _train_all(grid: Grid, workdir: Path) -> Runs:
    """The results of every training."""
    runs: Runs = {}
    for model, by_pair in grid.items():
        runs[model] = {}
        for pair in by_pair:
            logging.info("%s, %s", model, CAPTIONS.get(pair, pair))
            runs[model][pair] = _train_one(by_pair, pair, workdir / model)
    return runs


def _with_filters(
    runs: Runs, filters: Mapping[str, Any], grid: Grid, config: ConfigDict
) -> Runs:
    """The results of every training, with the numbers of the filters in each."""
    label = settings.label_params(config)

    def joined(model: str, pair: str) -> dict[str, Any]:
        same = settings.label_params(grid[model][pair]) == label
        found = filters if same else _whatever_the_label(filters)
        return _joined(runs[model][pair], found)

    return {
        model: {pair: joined(model, pair) for pair in by_pair}
        for model, by_pair in runs.items()
    }


def _whatever_the_label(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that do not depend on IPv2's test label."""
    blocks = {
        name: {key: value for key, value in block.items() if key != "against_label"}
        for name, block in filters["datasets"].items()
        if Reference(block["label"]).aligned
    }
    rows = [row if row["dataset"] in blocks else {} for row in filters["slices"]]
    # Nodules are measured against a truth, never against a label.
    detail = {"detail": filters["detail"]} if "detail" in filters else {}
    return {"datasets": blocks, "slices": rows, **detail}


def _joined(ours: Any, others: Any) -> Any:
    """Both nested values in one; where both have a value, ours counts."""
    if isinstance(ours, dict) and isinstance(others, dict):
        both = ours.keys() & others.keys()
        return {
            key: _joined(ours[key], others[key]) if key in both else value
            for key, value in (others | ours).items()
        }
    if isinstance(ours, list) and isinstance(others, list) and len(ours) == len(others):
        return [_joined(a, b) for a, b in zip(ours, others, strict=True)]
    return ours


def _is_comparison(results: Mapping[str, Any]) -> bool:
    """Whether these are results by network and pairs."""
    return bool(results) and all(
        isinstance(by_pair, dict)
        and by_pair
        and all(isinstance(one, dict) and is_measured(one) for one in by_pair.values())
        for by_pair in results.values()
    )


def _read_table(path: Path) -> str:
    """The table of a complete run."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: damaged or gone ({error}). Give another --workdir."
        ) from error


def configs_of(config: ConfigDict) -> Grid:
    """Returns the config of every training, {model: {pairs: config}}.

    The trainings measure no filters; `compare` does, once.
    """
    grid: Grid = {}
    for model in config.compare.models or (config.model.name,):
        grid[model] = {}
        for pair in config.compare.pairs:
            one = config.copy_and_resolve_references()
            with one.unlocked():
                if config.compare.models:
                    one.update(config.compare.zoo[model].to_dict())
                one.purify.update(config.compare.options[pair].to_dict())
                one.evaluate.filters = ()
            grid[model][pair] = one
    return grid


def _train_one(
    by_pair: Mapping[str, ConfigDict], pair: str, folder: Path
) -> dict[str, Any]:
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


def _write_outputs(
    config: ConfigDict,
    grid: Grid,
    runs: Runs,
    sources: Sources,
    references: References,
    shown: Mapping[str, Shown],
    workdir: Path,
) -> None:
    """Writes tables, pictures, the page and results."""
    tables, full_tables = (
        {
            model: format_comparison(
                {CAPTIONS.get(pair, pair): run for pair, run in by_pair.items()},
                title="trained on",
                full=full,
            )
            for model, by_pair in runs.items()
        }
        for full in (False, True)
    )
    aligned = all(has_places(run) for by in runs.values() for run in by.values())
    if config.compare.models and aligned:
        text = format_grid(runs, CAPTIONS)
    else:
        text = "\n\n".join(tables.values())
    print(f"\n{text}")
    write_atomically(workdir / "comparison.txt", text + "\n")
    write_files(
        workdir,
        "all_numbers",
        "\n\n".join(f"{model}\n\n{one}" for model, one in full_tables.items()),
        {(model, p): run for model, by in runs.items() for p, run in by.items()},
        ("network", "pairs"),
    )
    for model, by_pair in grid.items():
        one = next(iter(by_pair.values()))
        draw(shown[model], one, references, workdir / model / "comparison.png")
    _write_page(config, runs, sources, shown, workdir)
    write_results(workdir, runs)
    print(f"\n{workdir / 'report.html'}")


def _write_page(
    config: ConfigDict,
    runs: Runs,
    sources: Sources,
    shown: Mapping[str, Shown],
    workdir: Path,
) -> None:
    """Writes the page of all trainings."""
    several, train = len(runs) > 1, config.train
    named = {
        _run_name(model, pair, several): (run, workdir / model / pair)
        for model, by_pair in runs.items()
        for pair, run in by_pair.items()
    }
    write_comparison_page(
        workdir / "report.html",
        {name: run for name, (run, _) in named.items()},
        config=config,
        sources=sources,
        shown=list(shown.values()),
        told={
            "Networks": ", ".join(runs),
            "Pairs": ", ".join(CAPTIONS.get(one, one) for one in config.compare.pairs),
            "Training": f"{train.duration} each, of {train.batch_size} patches of "
            f"{train.patch} pixels",
        },
        title=f"{workdir.name}: {', '.join(runs)} on differently composed pairs",
        metrics={name: folder / "metrics.jsonl" for name, (_, folder) in named.items()},
    )


def _run_name(model: str, pair: str, several: bool) -> str:
    """Returns what the page calls a training."""
    caption = CAPTIONS.get(pair, pair)
    return f"{model}, {caption}" if several else caption


def _shown(
    model: str,
    by_pair: Mapping[str, ConfigDict],
    runs: Mapping[str, dict[str, Any]],
    sources: Sources,
    workdir: Path,
    several: bool,
) -> Shown:
    """Returns the outputs of a network's trainings."""
    denoiser = settings.denoiser(next(iter(by_pair.values())))
    exports = {pair: workdir / model / pair / "export" for pair in by_pair}
    # Trainings that differ in the label alone have one export.
    names = {
        pair: _run_name(model, pair, several)
        for pair, export in exports.items()
        if export.exists()
    }
    makers = {
        name: network_output(
            make_denoise(denoiser), to_host(load_trained(exports[pair]).variables)
        )
        for pair, name in names.items()
    }
    return Shown(
        name=model if several else "",
        runs={name: runs[pair] for pair, name in names.items()},
        source=sources.held_out,
        channels=denoiser.slices,
        make_outputs=lambda batch: {
            name: make(batch)["output"] for name, make in makers.items()
        },
    )


def draw(shown: Shown, config: ConfigDict, references: References, path: Path) -> None:
    """Draws input, outputs and reference of the test slice that shows the most lung.

    Args:
      shown: the outputs of the trainings of one network.
      config: of one of these trainings.
      references: of each data set.
      path: where to write the PNG.
    """
    # The slices of one data set are images of one kind; those of several may not be.
    dataset, places = next(iter(shown.source.places_by_dataset().items()))
    label = references[dataset].label
    stacks = Stacks(shown.source, shown.channels)
    chosen = _slice_with_most_lung(stacks, places, label, config)
    stack = chosen["lq"][None]
    images = {"low dose": stack[0, ..., stack.shape[-1] // 2]}
    for name, image in shown.make_outputs({"lq": stack}).items():
        images[name] = np.asarray(image[0])
    if "label" in chosen:
        images["IPv2's test label"] = chosen["label"]
    images[label] = chosen["reference"]
    lung = chosen["regions"]["lung"]
    captions = {
        name: f"RMSE {_rmse_hu(image, images[label], lung):.0f} HU in the lung"
        for name, image in images.items()
        if name != label
    }
    save_comparison(
        path, images, captions=captions, inset=_inset(lung), reference=label
    )


def _slice_with_most_lung(
    stacks: Stacks, places: Sequence[int], label: str, config: ConfigDict
) -> Mapping[str, Any]:
    """A test slice with its reference and regions, as `preparation` makes them."""
    records = (stacks[place] for place in places)
    slices = prepared_slices(
        ({key: one[key] for key in KEYS if key in one} for one in records),
        preparation(label, config),
        batch_size=config.evaluate.batch_size,
    )
    return max(slices, key=lambda one: int(one["regions"]["lung"].sum()))


def _rmse_hu(image: np.ndarray, reference: np.ndarray, region: np.ndarray) -> float:
    error = (image - reference)[region]
    return float(np.sqrt(np.mean(np.square(error)))) if error.size else float("nan")


def _inset(lung: np.ndarray) -> tuple[int, int, int]:
    """(top, left, side) of a square about the middle of the larger half of the lung."""
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
