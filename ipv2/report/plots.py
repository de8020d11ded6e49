"""Drawings of a report as SVG: bias, spectrum, d' against dose, profiles, training."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.report.parts import Plot
from common.report.plots import COLOURS, WIDTH, curves, figure_svg
from ipv2.measures.evaluation import INPUT
from ipv2.measures.metrics import REGIONS
from ipv2.measures.tissues import TISSUES
from ipv2.report.edge_profiles import Profile
from ipv2.report.numbers import DatasetNumbers
from ipv2.report.tables import tissue_words

_BLACK, _GREY = "#000000", "#808080"
_DASHES = ("-", "--", ":")
# More lines than these cannot be told apart.
_MOST_LINES = len(COLOURS) * len(_DASHES)
# Inches of a bar; factor between doses of points that would lie on each other.
_ROW, _ASIDE = 0.24, 1.12


class _Look(NamedTuple):
    colour: str
    dash: str


def _looks(images: Sequence[str]) -> dict[str, _Look]:
    """Returns how lines of images look: the input black, others as they come."""
    others = [image for image in images if image != INPUT]
    looks = {INPUT: _Look(_BLACK, "--")} if INPUT in images else {}
    for number, image in enumerate(others[:_MOST_LINES]):
        colour = COLOURS[number % len(COLOURS)]
        looks[image] = _Look(colour, _DASHES[number // len(COLOURS)])
    return looks


def _left_out(images: Sequence[str], looks: Mapping[str, _Look]) -> str:
    left = [image for image in images if image not in looks]
    return f"Not drawn, of which the tables tell: {', '.join(left)}." if left else ""


def bias_plot(numbers: DatasetNumbers) -> Plot | None:
    """Returns the bias of every image by tissue; by region without a reference.

    None if nothing of it is defined.
    """
    group, places = (
        ("tissues", list(TISSUES)) if numbers.aligned else ("regions", list(REGIONS))
    )
    bars = {
        place: {
            image: numbers.estimate(image, (group, place, "bias_hu"))
            for image in numbers.images
        }
        for place in places
    }
    shown = {
        place: of_image
        for place, of_image in bars.items()
        if any(one is not None for one in of_image.values())
    }
    if not shown:
        return None
    rows = len(numbers.images)
    height = len(shown) * (rows * _ROW + 0.35) + 0.4
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (place, of_image) in zip(panels, shown.items(), strict=True):
        for row, (image, one) in enumerate(of_image.items()):
            if one is None:
                axes.text(0, row, " not defined", va="center", fontsize=8)
                continue
            ends = None
            if one.low is not None and one.high is not None:
                # A percentile interval need not hold the mean.
                spread = [one.mean - one.low, one.high - one.mean]
                ends = np.maximum(spread, 0)[:, None]
            colour = COLOURS[0] if image in numbers.outputs else _GREY
            axes.barh(row, one.mean, height=0.7, color=colour)
            axes.errorbar(one.mean, row, xerr=ends, color=_BLACK, capsize=2, lw=1)
        axes.set_yticks(range(rows), list(of_image), fontsize=8)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.axvline(0, color=_BLACK, lw=0.8)
        axes.set_title(place, fontsize=10, loc="left", pad=2)
        _plain(axes)
    panels[-1].set_xlabel("bias, HU")
    what = "tissue" if numbers.aligned else "region"
    return Plot(
        title=f"Bias by {what}",
        svg=figure_svg(figure),
        note="Bars are means over slices, with 95 % intervals. Left of 0 is too dark.",
    )


def spectrum_plot(numbers: DatasetNumbers) -> Plot | None:
    """Returns the error's noise power spectrum of every image; None without any."""
    found = {
        image: block.get("error_nps", {}).get(own)
        for image, (block, own) in numbers.blocks.items()
    }
    known = {image: one for image, one in found.items() if one and one["n"]}
    if not known:
        return None
    looks = _looks(list(known))
    figure, axes = _single()
    for image, look in looks.items():
        one = known[image]
        axes.plot(
            *(one["frequency_per_mm"], one["power_hu2_mm2"]),
            color=look.colour,
            ls=look.dash,
            lw=1.5,
            label=image,
        )
    axes.set(xlabel="cycles per mm", ylabel="HU² mm²", ylim=(0, None))
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.legend(fontsize=8)
    return Plot(
        title="Noise power spectrum of the error",
        svg=figure_svg(figure),
        note="Of image - reference inside the body. Power at the left is blotches. "
        + _left_out(list(known), looks),
    )


def profile_plot(
    profiles: Mapping[str, Mapping[str, Profile]], reference: str
) -> Plot | None:
    """Returns mean profiles across edges; None if there is none.

    Args:
      profiles: by edge and by image; `reference` is among the images.
      reference: the image that edges were found in.
    """
    known = {edge: of_image for edge, of_image in profiles.items() if of_image}
    if not known:
        return None
    figure = Figure(figsize=(WIDTH, 2.6 * len(known)), layout="constrained")
    panels = figure.subplots(len(known), 1, squeeze=False)[:, 0]
    for axes, (edge, of_image) in zip(panels, known.items(), strict=True):
        others = [image for image in of_image if image != reference]
        truth = of_image[reference]
        axes.plot(truth.at, truth.hu, color=_BLACK, lw=2.2, label=reference)
        for image, look in _looks(others).items():
            one = of_image[image]
            axes.plot(
                *(one.at, one.hu), color=look.colour, ls=look.dash, lw=1.2, label=image
            )
        axes.set_title(edge, fontsize=10, loc="left")
        axes.set(xlabel=f"{truth.unit} from the edge, outwards", ylabel="HU")
        axes.legend(fontsize=8)
        _plain(axes)
    return Plot(
        title="Profiles across edges",
        svg=figure_svg(figure),
        note="Means over the slices of the viewer, from dark to bright.",
    )


def detail_plots(details: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """Returns d' against dose, a drawing for each tissue; [] if none is defined.

    Args:
      details: a data set's part of the key `detail` of results, by run; what they
        have in common is drawn of the first.
    """
    first = next(iter(details.values()))
    made = (_detail_plot(tissue, details, first) for tissue in first["nodules"])
    return [plot for plot in made if plot is not None]


def _detail_plot(
    tissue: str, details: Mapping[str, Mapping[str, Any]], first: Mapping[str, Any]
) -> Plot | None:
    curves_of_kind = first["undenoised"][tissue]
    points = dict(_points(tissue, details, first))
    kinds = [
        kind
        for kind, curve in curves_of_kind.items()
        if any(value is not None for value in curve["value"])
    ]
    if not kinds:
        return None
    rows = -(-len(kinds) // 2)
    figure = Figure(figsize=(WIDTH, 1.9 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    looks = _looks(list(points))
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    for axes, kind in zip(panels, kinds, strict=False):
        _draw_curve(axes, first["doses"], curves_of_kind[kind])
        for run, detail in details.items():
            if run in looks and "denoised" in detail:
                curve = detail["denoised"][tissue][kind]
                _draw_denoised(axes, detail["doses"], curve, looks[run])
        for image, look in looks.items():
            _draw_point(
                axes, first["dose"], points[image][kind]["d_prime"], look, image
            )
        axes.set_title(kind, fontsize=9)
        axes.set_xscale("log")
        ticks = first["doses"][:: max(1, len(first["doses"]) // 2)]
        axes.set_xticks(ticks, [f"{100 * dose:.3g} %" for dose in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, None)
        axes.tick_params(labelsize=8)
        _plain(axes)
    figure.supxlabel("dose, of the normal dose", fontsize=9)
    figure.supylabel("d'", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
    return Plot(
        title=f"d' against dose: nodules in {tissue_words(tissue)}",
        svg=figure_svg(figure),
        note="The black line is the undenoised scan, with its 95 % intervals; coloured "
        "lines are the network's outputs at these doses, points the images at the "
        "lowest dose. " + _left_out(list(points), looks),
    )


def _points(
    tissue: str, details: Mapping[str, Mapping[str, Any]], first: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the filters' nodules by kind, and the outputs'; the input is the curve."""
    for image, kinds in first["nodules"][tissue].items():
        if image not in (INPUT, "output"):
            yield image, kinds
    for run, detail in details.items():
        if "output" in detail["nodules"][tissue]:
            yield run, detail["nodules"][tissue]["output"]


def _draw_curve(
    axes: Axes, doses: Sequence[float], curve: Mapping[str, list[float | None]]
) -> None:
    value, low, high = (
        np.array([np.nan if v is None else v for v in curve[key]], np.float64)
        for key in ("value", "low", "high")
    )
    axes.plot(doses, value, color=_BLACK, lw=1.2, marker=".", label="undenoised")
    axes.fill_between(doses, low, high, color=_GREY, alpha=0.25, lw=0)


def _draw_denoised(
    axes: Axes,
    doses: Sequence[float],
    curve: Mapping[str, list[float | None]],
    look: _Look,
) -> None:
    value = [np.nan if v is None else v for v in curve["value"]]
    axes.plot(doses, value, color=look.colour, ls=look.dash, lw=1)


def _draw_point(
    axes: Axes, dose: float, seen: Mapping[str, Any], look: _Look, name: str
) -> None:
    if seen["value"] is None:
        return
    ends = None
    if seen["low"] is not None and seen["high"] is not None:
        spread = [seen["value"] - seen["low"], seen["high"] - seen["value"]]
        ends = np.maximum(spread, 0)[:, None]
    marker = {"-": "o", "--": "s", ":": "^"}[look.dash]
    axes.errorbar(
        *(dose, seen["value"]), yerr=ends, color=look.colour, marker=marker, ms=4,
        lw=1, capsize=2, label=name,
    )  # fmt: skip


def training_plot(metrics: Path) -> Plot | None:
    """Returns the curves of a training; None if nothing was logged.

    Args:
      metrics: `metrics.jsonl` of the run.
    """
    if not metrics.exists():
        return None
    lines = [json.loads(x) for x in metrics.read_text(encoding="utf-8").splitlines()]
    there = dict.fromkeys(key for line in lines for key in line)
    names = [name for name in ("train/loss", "train/gradient_norm") if name in there]
    names += [
        name
        for name in there
        if name.startswith("val/") and name.endswith("psnr_db_lung")
    ]
    if not names:
        return None
    return Plot(
        title="Training",
        svg=curves(metrics, names, linear=[n for n in names if n.startswith("val/")]),
        note="val/psnr_db_lung is the PSNR of validation slices in the lung window, dB."
        if len(names) > 2
        else "",
    )


def _single() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    """Leaves the lines that carry a scale."""
    axes.spines[["top", "right"]].set_visible(False)
