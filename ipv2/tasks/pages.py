"""Writes the pages of trainings, evaluations and comparisons: `report.html`."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config import ConfigDict, as_json
from common.report.page import write_page
from common.report.parts import Text
from ipv2.report.about import About
from ipv2.report.paired import paired_report
from ipv2.report.report import comparison_report, run_report
from ipv2.tasks import facts
from ipv2.tasks.sources import Sources
from ipv2.tasks.tables import notes_of
from ipv2.tasks.views import Shown, Views, views_of

Results = Mapping[str, Any]


def write_run_page(
    path: Path,
    results: Results,
    *,
    config: ConfigDict,
    sources: Sources,
    shown: Shown,
    network: str,
    told: Mapping[str, str],
    title: str,
    metrics: Mapping[str, Path] | None = None,
) -> None:
    """Writes the page of a training or an evaluation.

    Args:
      path: of the page.
      results: the content of `results.json` or `evaluation.json`.
      config: the command's config.
      sources: the data of the run.
      shown: the outputs to look at.
      network: what the verdict calls the network.
      told: facts of the network and its pairs.
      title: of the page.
      metrics: `metrics.jsonl` by what to call the training.
    """
    views = views_of([shown], config)
    about = dataclasses.replace(
        _about(
            *(path, results, config, sources, told, title, views),
            seconds=results.get("seconds"),
        ),
        network=network,
        metrics=metrics or {},
    )
    write_page(path, run_report(results, about, views.views))


def write_comparison_page(
    path: Path,
    runs: Mapping[str, Results],
    *,
    config: ConfigDict,
    sources: Sources,
    shown: Sequence[Shown],
    told: Mapping[str, str],
    title: str,
    metrics: Mapping[str, Path],
) -> None:
    """Writes the page of trainings on the same data.

    Args:
      path: of the page.
      runs: results by what to call the training.
      config: the command's config.
      sources: the data of the run.
      shown: the outputs to look at, of each network.
      told: facts of the networks and their pairs.
      title: of the page.
      metrics: `metrics.jsonl` by what to call the training.
    """
    views = views_of(shown, config)
    first = next(iter(runs.values()))
    about = dataclasses.replace(
        _about(path, first, config, sources, told, title, views), metrics=metrics
    )
    write_page(path, comparison_report(runs, about, views.views))


def _about(
    path: Path,
    results: Results,
    config: ConfigDict,
    sources: Sources,
    told: Mapping[str, str],
    title: str,
    views: Views,
    seconds: float | None = None,
) -> About:
    """Returns what every page says of data and circumstances."""
    return About(
        title=title,
        facts={
            "Data": facts.data_words(sources, results),
            **told,
            "Dose": facts.dose_words(sources, config),
            **facts.run_facts(config.seed, seconds),
        },
        doses=facts.doses_of(sources, config),
        warnings=_warnings(results, sources, views.left_out),
        notes=_notes(results),
        texts=_texts(path.parent, config),
    )


def write_paired_page(
    path: Path, compared: Results, runs: Mapping[str, Results]
) -> None:
    """Writes the page of finished runs that were paired.

    Args:
      path: of the page.
      compared: the content of `paired.json`.
      runs: results by the name of the run.
    """
    told = {
        run: ", ".join(
            f"{key} {results[key]}" for key in ("seed", "steps") if key in results
        )
        for run, results in runs.items()
    }
    about = About(
        title=f"{path.parent.name}: {len(runs)} runs, paired slice by slice",
        facts={
            "First": compared["first"],
            **{f"Run {run}": text for run, text in told.items() if text},
            **facts.software_facts(),
        },
        warnings=facts.warnings_of(compared),
        texts=[
            Text(f"Config of {run}", config.read_text(encoding="utf-8"))
            for run in runs
            if (config := _folder(run) / "config.json").is_file()
        ],
    )
    write_page(path, paired_report(compared, about))


def _folder(run: str) -> Path:
    path = Path(run)
    return path if path.is_dir() else path.parent


def _warnings(results: Results, sources: Sources, left_out: str) -> list[str]:
    missing = [
        f"{name} could not be fetched: the run is without it."
        for name in sources.unavailable
    ]
    found = [*missing, *facts.warnings_of(results), left_out]
    return [one for one in found if one]


def _notes(results: Results) -> dict[str, list[str]]:
    return {name: notes_of(block) for name, block in results["datasets"].items()}


def _texts(workdir: Path, config: ConfigDict) -> list[Text]:
    """Returns the command's config, and what the folder says of its data."""
    texts = [Text("Config", json.dumps(as_json(config), indent=2))]
    data = workdir / "data.json"
    if data.is_file():
        texts.append(Text("Data", data.read_text(encoding="utf-8")))
    return texts
