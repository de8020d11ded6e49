"""Composes the report of a run from its numbers and the slices to view."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.report.parts import (
    Part,
    Plot,
    Report,
    Section,
    Table,
    Viewer,
)
from ipv2.report.about import About, composed
from ipv2.report.edge_profiles import Slice, mean_profiles
from ipv2.report.numbers import (
    OUTPUT,
    DatasetNumbers,
    Results,
    against_label,
    dataset_numbers,
    joined_numbers,
)
from ipv2.report.plots import (
    bias_plot,
    detail_plots,
    profile_plot,
    spectrum_plot,
    training_plot,
)
from ipv2.report.tables import (
    distance_tables,
    full_tables,
    headline_table,
    nodule_tables,
    slices_table,
)
from ipv2.report.verdict import NO_RANKING, sample_words, verdict
from ipv2.report.viewed_slices import SeenSlice, viewed_slice


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """Slices of one data set to look at.

    Attributes:
      title: above the viewer.
      numbers: of the data set; `SeenSlice.index` counts its rows.
      slices: with their images.
      note: how they were chosen, and what does not fit on the page.
    """

    title: str
    numbers: DatasetNumbers
    slices: Sequence[SeenSlice]
    note: str


def run_report(results: Results, about: About, views: Sequence[View] = ()) -> Report:
    """Returns the report of a training or an evaluation.

    Args:
      results: the content of `results.json` or `evaluation.json`.
      about: what to say beside the numbers.
      views: slices to look at.
    """
    datasets = dataset_numbers(results)
    detail = {OUTPUT: results.get("detail", {})}
    return _report(datasets, detail, about, views, {OUTPUT: about.network})


def comparison_report(
    runs: Mapping[str, Results], about: About, views: Sequence[View] = ()
) -> Report:
    """Returns the report of trainings that were measured on the same slices.

    Args:
      runs: results by what to call the run.
      about: what to say beside the numbers.
      views: slices to look at.
    """
    detail = {run: results.get("detail", {}) for run, results in runs.items()}
    return _report(joined_numbers(runs), detail, about, views, {})


def _report(
    datasets: Sequence[DatasetNumbers],
    detail: Mapping[str, Mapping[str, Any]],
    about: About,
    views: Sequence[View],
    names: Mapping[str, str],
) -> Report:
    sections = [_slices_section(views)] if views else []
    for numbers in datasets:
        of_runs = {
            run: blocks[numbers.name]
            for run, blocks in detail.items()
            if numbers.name in blocks
        }
        sections += _dataset_sections(numbers, of_runs, about, views)
    sections += _training_sections(about.metrics)
    return composed(
        about,
        verdict=verdict(datasets, names, about.doses),
        headline=headline_table(datasets),
        sections=sections,
    )


def _slices_section(views: Sequence[View]) -> Section:
    return Section(
        "Slices",
        [
            Viewer(
                title=view.title,
                slices=[viewed_slice(view.numbers, seen) for seen in view.slices],
                note=view.note,
            )
            for view in views
        ],
    )


def _dataset_sections(
    numbers: DatasetNumbers,
    detail: Mapping[str, Mapping[str, Any]],
    about: About,
    views: Sequence[View],
) -> list[Section]:
    """Returns the plots and tables of a data set, and those against its label."""
    notes = " ".join(about.notes.get(numbers.name, ()))
    own = [view for view in views if view.numbers.name == numbers.name]
    plots = [bias_plot(numbers), spectrum_plot(numbers), *map(_profiles, own)]
    parts: list[Part] = [plot for plot in plots if plot is not None]
    parts += detail_plots(detail) if detail else []
    parts += _with_note(full_tables(numbers), notes)
    parts += nodule_tables(detail) if detail else []
    parts += distance_tables(numbers)
    of_slices = slices_table(numbers)
    parts += [] if of_slices is None else [of_slices]
    sections = [Section(_title(numbers), parts)]
    label = against_label(numbers)
    if label is not None:
        tables = _with_note(full_tables(label), NO_RANKING)
        sections.append(Section(_title(label), tables))
    return sections


def _title(numbers: DatasetNumbers) -> str:
    words = {
        "truth": "the truth",
        "gt": "the normal-dose image",
        "v1": "IPv1's test label",
        "v2": "IPv2's test label",
    }
    reference = words[numbers.block["label"]]
    return f"{numbers.name} against {reference}: {sample_words(numbers.block)}"


def _with_note(tables: Sequence[Table], note: str) -> list[Table]:
    """Returns the tables with a note below the first."""
    if not tables or not note:
        return list(tables)
    first, *others = tables
    return [dataclasses.replace(first, note=note), *others]


def _profiles(view: View) -> Plot | None:
    """Returns the profiles across the edges of a view's slices."""
    if not view.numbers.aligned or not view.slices:
        return None
    reference = view.slices[0].reference
    shown = [*view.numbers.images, reference]
    slices = [
        Slice(
            images={name: hu for name, hu in one.images.items() if name in shown},
            lung=one.lung,
            pixel_mm=one.pixel_mm,
        )
        for one in view.slices
    ]
    plot = profile_plot(mean_profiles(slices, reference), reference)
    if plot is None:
        return None
    return dataclasses.replace(plot, title=f"{plot.title}: {view.title}")


def _training_sections(metrics: Mapping[str, Path]) -> list[Section]:
    plots = []
    for name, path in metrics.items():
        plot = training_plot(path)
        if plot is not None:
            plots.append(dataclasses.replace(plot, title=name))
    return [Section("Training", plots)] if plots else []
