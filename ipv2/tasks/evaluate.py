"""Evaluation of a denoiser on a split of a run's data sets, each by itself."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.checkpoint import load_manifest
from common.config import ConfigDict
from common.devices import is_first_process, to_host, wait_for_all
from common.errors import RunFailed, UserError
from common.files import write_atomically
from common.progress import Progress
from common.typing import PyTree
from common.workdir import hold_workdir
from ipv2.measures.evaluation import (
    NOISE_DESCRIPTIONS,
    MakeImages,
    evaluate_slices,
    network_output,
    prepared_batches,
)
from ipv2.measures.filters import check_filters
from ipv2.measures.metrics import WINDOWS
from ipv2.measures.perceptual import LDCT_BENCHMARK
from ipv2.measures.summary import mean_spectra, slice_numbers, summary_block
from ipv2.tasks import facts
from ipv2.tasks.check import check_config
from ipv2.tasks.detail import measure_detail, require_single_slices
from ipv2.tasks.distances import check_features, measure_distances
from ipv2.tasks.exported import load_exported
from ipv2.tasks.outputs import Judged, JudgedSlices, open_outputs
from ipv2.tasks.pages import write_run_page
from ipv2.tasks.png_images import write_images
from ipv2.tasks.references import KEYS, Reference, evenly, preparation, references_of
from ipv2.tasks.result_files import SCHEMA_VERSION, write_files
from ipv2.tasks.sources import Joined, Sources, open_sources, require_even_slices
from ipv2.tasks.strengths import Strength, choose_strengths, make_filtered
from ipv2.tasks.tables import format_results
from ipv2.tasks.views import Shown
from ipv2.training.denoiser import Denoiser, make_denoise
from ipv2.training.stacks import Stacks

References = Mapping[str, Reference]
Strengths = Mapping[str, Mapping[str, Strength]]
# From a data set to what makes its images.
ImagesOf = Callable[[str], MakeImages]


def evaluate(
    denoiser: Denoiser,
    variables: PyTree,
    source: Joined,
    config: ConfigDict,
    references: References,
    *,
    name: str,
    strengths: Strengths | None = None,
    full: bool = True,
) -> dict[str, Any]:
    """Returns the numbers of a denoiser, and of filters, on a split.

    Args:
      denoiser: the network.
      variables: the network's variables.
      source: the records of the split.
      config: a checked IPv2 config, of which `evaluate` and `purify` count.
      references: of each data set, from `references_of`.
      name: the name of the work, for the progress line.
      strengths: of each data set's filters; None for no filters.
      full: whether to take all measures, which validations do not.

    Returns:
      `n_slices`, `windows`, `datasets` (a block for each data set), `slices` and
      `schema_version`; see docs/evaluation.md.
    """
    denoised = network_output(make_denoise(denoiser), to_host(variables))
    chosen = strengths or {}

    def images_of(dataset: str) -> MakeImages:
        filtered = make_filtered(chosen.get(dataset, {}))
        return lambda batch: {**filtered(batch), **denoised(batch)}

    stacks = Stacks(source, denoiser.slices)
    results = _measured(stacks, source, config, references, images_of, name, full)
    if full and config.evaluate.detail:
        results["detail"] = measure_detail(source, config, images_of, denoised)
    return _with_strengths(results, chosen)


def evaluate_filters(
    sources: Sources, config: ConfigDict, references: References
) -> dict[str, Any]:
    """Returns the numbers of the filters alone on the slices held out.

    Args:
      sources: the data of the run.
      config: a checked IPv2 config.
      references: of each data set, from `references_of`.
    """
    strengths = choose_strengths(sources, references, config)
    source = sources.held_out

    def images_of(dataset: str) -> MakeImages:
        return make_filtered(strengths[dataset])

    stacks = Stacks(source, 1)
    results = _measured(stacks, source, config, references, images_of, "filters")
    if config.evaluate.detail:
        results["detail"] = measure_detail(source, config, images_of)
    return _with_strengths(results, strengths)


def evaluate_outputs(
    config: ConfigDict, sources: Sources, judged: Judged
) -> dict[str, Any]:
    """Returns the numbers of other software's outputs on the slices held out.

    Args:
      config: a checked IPv2 config with `evaluate.outputs`.
      sources: the data of the run.
      judged: the outputs.
    """
    references = references_of(sources, config)
    strengths = choose_strengths(sources, references, config)

    def images_of(dataset: str) -> MakeImages:
        filtered = make_filtered(strengths[dataset])
        return lambda batch: {**filtered(batch), "output": batch["output"]}

    slices = judged.slices
    stacks = Stacks(slices, 1)
    results = _measured(stacks, slices, config, references, images_of, "outputs")
    return _with_strengths(results, strengths) | {
        "dataset_names": list(sources.names),
        "seed": config.seed,
        "outputs": judged.report,
    }


def _measured(
    stacks: Stacks,
    source: Joined | JudgedSlices,
    config: ConfigDict,
    references: References,
    images_of: ImagesOf,
    name: str,
    full: bool = True,
) -> dict[str, Any]:
    """Returns the numbers of all images on the chosen slices of a split."""
    chosen = set(evenly(range(len(source)), config.evaluate.slices))
    blocks: dict[str, Any] = {}
    slices: list[dict[str, Any]] = []
    png = config.evaluate.png if full and is_first_process() else ""
    # Distances and PNG take another look at every slice each.
    looks = 1 + bool(full and config.evaluate.features) + bool(png)
    with Progress(name, looks * len(chosen), "slices") as progress:
        for dataset, all_places in source.places_by_dataset().items():
            places = [place for place in all_places if place in chosen]
            if places:
                blocks[dataset], rows = _measured_dataset(
                    stacks,
                    places,
                    config,
                    references[dataset],
                    images_of(dataset),
                    progress,
                    full,
                    Path(png) / dataset if png else None,
                )
                slices += [{"dataset": dataset, **row} for row in rows]
    return {
        "schema_version": SCHEMA_VERSION,
        "n_slices": len(slices),
        "windows": _windows(),
        "datasets": blocks,
        "slices": slices,
    }


def _windows() -> dict[str, dict[str, float]]:
    """Returns what each number by window was clipped to, in HU."""
    return {
        name: {
            "center_hu": window.center_hu,
            "width_hu": window.width_hu,
            "low_hu": window.low_hu,
            "high_hu": window.high_hu,
            "data_range_hu": window.width_hu,
        }
        for name, window in (*WINDOWS.items(), ("ldct_benchmark", LDCT_BENCHMARK))
    }


def _measured_dataset(
    stacks: Stacks,
    places: Sequence[int],
    config: ConfigDict,
    reference: Reference,
    make_images: MakeImages,
    progress: Progress,
    full: bool,
    png: Path | None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the block of one data set, and the numbers of each of its slices."""
    identities: list[dict[str, Any]] = []
    prepare = preparation(reference.label, config)
    batch_size = config.evaluate.batch_size

    def records(kept: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for place in places:
            record = stacks[place]
            kept.append(_identity(record))
            yield {key: record[key] for key in KEYS if key in record}
            progress.update()

    try:
        measured = evaluate_slices(
            make_images,
            records(identities),
            batch_size=batch_size,
            aligned=reference.aligned,
            full=full,
            prepare=prepare,
        )
    except FloatingPointError as error:
        raise RunFailed(f"evaluation: {error}") from error
    patients = [one["patient"] for one in identities]
    block = {
        **reference.described(),
        "noise": NOISE_DESCRIPTIONS[reference.aligned],
        **summary_block(measured.reference, patients),
    }
    if measured.spectra:
        block["error_nps"] = mean_spectra(measured.spectra)
    if full and config.evaluate.features:
        batches = prepared_batches(records([]), batch_size, prepare)
        names = config.evaluate.features
        block["distances"] = measure_distances(names, batches, make_images, patients)
    if png is not None:
        batches = prepared_batches(records([]), batch_size, prepare)
        write_images(png, batches, make_images, identities)
    if measured.label:
        block["against_label"] = {
            "label": "v2",
            "noise": NOISE_DESCRIPTIONS[False],
            **summary_block(measured.label, patients),
        }
    rows = [
        {**identity, **slice_numbers(measured, index)}
        for index, identity in enumerate(identities)
    ]
    return block, rows


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what names a slice in the results."""

    def text(value: bytes | str) -> str:
        return value.decode() if isinstance(value, bytes) else value

    return {
        "patient": text(record["patient"]),
        "name": text(record["name"]),
        "slice": int(record["slice"]),
    }


def _with_strengths(results: dict[str, Any], strengths: Strengths) -> dict[str, Any]:
    """Adds to each block the strength of its filters."""
    for dataset, block in results["datasets"].items():
        block["strengths"] = {
            name: one._asdict() for name, one in strengths.get(dataset, {}).items()
        }
    return results


def evaluate_run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the network exported in `workdir`, or outputs, on the test split.

    Outputs of other software are those in `config.evaluate.outputs`; then the folder
    needs no network.

    Writes `evaluation.json`, `.txt` and `.csv` into `workdir`, and `evaluation.html`;
    `results.json` and `report.html` stay those of the training. A folder without a
    training gets `report.html` instead.

    Args:
      config: the config of a recipe; checked here. Its network does not count.
      workdir: the folder of a finished training run.

    Raises:
      UserError: the config is wrong, or the folder holds no exported network.
    """
    check_config(config, takes_outputs=True)
    check_filters(config.evaluate.filters)
    check_features(config.evaluate.features)
    outputs = config.evaluate.outputs
    if not outputs:
        # First, so that no folder without a run is made or locked.
        load_manifest(workdir / "export")
    with hold_workdir(workdir, "task evaluate"):
        evaluated = (
            _evaluate_outputs(config)
            if outputs
            else _evaluate_export(config, workdir / "export")
        )
        results = evaluated.results
        if is_first_process():
            path = workdir / "evaluation.json"
            write_atomically(path, json.dumps(results, indent=2) + "\n")
            text = format_results(results, title=workdir.name, full=True)
            write_files(workdir, "evaluation", text, {(): results})
            _write_page(evaluated, config, workdir)
        wait_for_all("report")
    return results


class _Evaluated(NamedTuple):
    """Results, and what it takes to see the slices again.

    Attributes:
      results: of the evaluation.
      sources: the data.
      shown: the outputs.
      network: what the verdict calls them.
      told: facts of them.
    """

    results: dict[str, Any]
    sources: Sources
    shown: Shown
    network: str
    told: dict[str, str]


def _evaluate_outputs(config: ConfigDict) -> _Evaluated:
    """Evaluates outputs of other software."""
    sources = open_sources(config)
    _require_held_out(sources)
    judged = open_outputs(config, sources.held_out)
    results = evaluate_outputs(config, sources, judged)
    shown = Shown(
        name="",
        runs={"output": results},
        source=judged.slices,
        channels=1,
        make_outputs=lambda batch: {"output": batch["output"]},
    )
    told = {"Outputs": f"of other software, in {config.evaluate.outputs}"}
    return _Evaluated(results, sources, shown, "the other software", told)


def _evaluate_export(config: ConfigDict, export: Path) -> _Evaluated:
    """Evaluates an exported network.

    Raises:
      UserError: the folder holds no exported network.
    """
    trained = load_exported(config, export)
    require_even_slices(config, trained.denoiser.slices)
    require_single_slices(config, trained.denoiser.slices)
    sources = open_sources(config)
    denoiser, variables = trained.denoiser, trained.variables
    results = evaluate_held_out(denoiser, variables, sources, config)
    shown = Shown(
        name="",
        runs={"output": results},
        source=sources.held_out,
        channels=denoiser.slices,
        make_outputs=network_output(make_denoise(denoiser), variables),
    )
    size = facts.parameters_words(variables)
    told = {"Network": f"{trained.describe()}; {size}"}
    if "purify" in (made := trained.manifest.get("trained_with", {})):
        told["Pairs"] = facts.pairs_words(made["purify"])
    return _Evaluated(results, sources, shown, trained.name, told)


def _write_page(evaluated: _Evaluated, config: ConfigDict, workdir: Path) -> None:
    """Writes the page; beside the one of a training it has a name of its own."""
    of_training = (workdir / "results.json").exists()
    write_run_page(
        workdir / ("evaluation.html" if of_training else "report.html"),
        evaluated.results,
        config=config,
        sources=evaluated.sources,
        shown=evaluated.shown,
        network=evaluated.network,
        told=evaluated.told,
        title=f"{workdir.name}: evaluation of {evaluated.network}",
    )


def evaluate_export(config: ConfigDict, export: Path) -> dict[str, Any]:
    """Returns the numbers of an exported network on the config's test split.

    Args:
      config: a checked IPv2 config; its network does not count.
      export: the folder of the exported network.

    Raises:
      UserError: the folder holds no exported network.
    """
    return _evaluate_export(config, export).results


def evaluate_held_out(
    denoiser: Denoiser,
    variables: PyTree,
    sources: Sources,
    config: ConfigDict,
    references: References | None = None,
) -> dict[str, Any]:
    """Returns the numbers on the slices held out, with the data sets' names and seed.

    Args:
      denoiser: the network.
      variables: the network's variables.
      sources: the data of the run.
      config: a checked IPv2 config.
      references: of each data set, if they are known already.

    Raises:
      UserError: nothing was held out.
    """
    _require_held_out(sources)
    if references is None:
        references = references_of(sources, config)
    results = evaluate(
        denoiser,
        variables,
        sources.held_out,
        config,
        references,
        name="test",
        strengths=choose_strengths(sources, references, config),
    )
    return results | {"dataset_names": list(sources.names), "seed": config.seed}


def _require_held_out(sources: Sources) -> None:
    if not len(sources.held_out):
        raise UserError(
            "config.data.split: nobody is held out, so there is nothing to evaluate "
            "on. Give a share to test: (0.0, 0.0, 1.0) evaluates on all."
        )


def scalars_of(results: Mapping[str, Any], split: str) -> dict[str, float]:
    """Returns the means of the output as scalars named `split/metric_window`.

    Where there are several data sets, `split/dataset/metric_window`.
    """
    blocks = results["datasets"]
    scalars = {}
    for name, block in blocks.items():
        prefix = split if len(blocks) == 1 else f"{split}/{name}"
        scalars |= _scalars_of_block(block["output"], prefix)
    return scalars


def _scalars_of_block(output: Mapping[str, Any], prefix: str) -> dict[str, float]:
    quality = {
        f"{prefix}/{metric}_{window}": value
        for metric in ("psnr_db", "ssim", "rmse_hu")
        for window, value in output[metric].items()
    }
    noise = {
        f"{prefix}/{key}_{region}": values[key]
        for region, values in output["regions"].items()
        for key in ("noise_sd_hu", "bias_hu")
        if values[key] is not None
    }
    return quality | noise
