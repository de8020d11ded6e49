"""Draws centres of attention, and ranges and sizes of layers."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acq.diagnosis.diagnosis import Diagnosis
from acq.report.layers import StoredLayers, Values, Weights
from common.report.plots import COLOURS, WIDTH

_ROW = 0.2
"""Inches of a layer."""
_FRAME = 0.9
"""Inches of title and axis of a panel."""
_THIN, _THICK = 1.5, 6.0
_FORMS = tuple(
    zip(("float32", "one byte a code", "packed"), COLOURS, "os^", strict=False)
)
"""Name, colour and marker of a size."""


def draw_centers(diagnosis: Diagnosis) -> Figure:
    """Returns achieved against requested centres of attention, x and y, with R^2."""
    figure = Figure(figsize=(WIDTH, 0.56 * WIDTH), layout="constrained")
    for k, (axes, name) in enumerate(zip(figure.subplots(1, 2), "xy", strict=True)):
        requested, achieved = diagnosis.requested[:, k], diagnosis.achieved[:, k]
        axes.plot([-1, 1], [-1, 1], color="grey", lw=0.8, label="as requested")
        axes.scatter(requested, achieved, s=12, alpha=0.8, lw=0, color=COLOURS[0])
        axes.set(
            xlim=(-1, 1),
            ylim=(-1, 1),
            aspect="equal",
            xlabel=f"{name} requested",
            ylabel=f"{name} achieved",
            title=f"{name}: R² {_number(diagnosis.center_r2(slice(k, k + 1)))}",
        )
        axes.legend(loc="upper left", fontsize="small")
    return figure


def draw_ranges(layers: StoredLayers) -> Figure:
    """Returns the ranges of weights and of activations by layer, in two panels."""
    rows = [len(layers.weights), len(layers.values)]
    figure, (weights, values) = _panels(rows)
    for axes in (weights, values):
        axes.axvline(0, color="grey", lw=0.8)
    for row, one in enumerate(layers.weights):
        _span(weights, row, np.min(one.low), np.max(one.high), _THIN)
        _span(weights, row, np.median(one.low), np.median(one.high), _THICK)
    for row, one in enumerate(layers.values):
        _span(values, row, one.low, one.high, _THICK)
    _name_rows(weights, layers.weights, "weights")
    _name_rows(values, layers.values, "activations")
    return figure


def draw_sizes(layers: StoredLayers) -> Figure:
    """Returns the weights' bytes by layer, in three forms on a logarithmic axis."""
    figure, (axes,) = _panels([len(layers.weights)])
    sizes = [
        (one.float_bytes, one.stored_bytes, one.packed_bytes) for one in layers.weights
    ]
    for k, (form, colour, marker) in enumerate(_FORMS):
        kilobytes = [size[k] / 1000 for size in sizes]
        # No bars: on a logarithmic axis their lengths mean nothing.
        axes.plot(kilobytes, range(len(sizes)), marker, color=colour, label=form)
    axes.set(xlabel="kB", xscale="log")
    axes.grid(axis="y", lw=0.4)
    # Above the panel, where no marker can be.
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(_FORMS), fontsize="small"
    )
    _name_rows(axes, layers.weights, "")
    return figure


def _panels(rows: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Returns a figure with a panel below the other for each number of rows."""
    heights = [_FRAME + _ROW * max(count, 1) for count in rows]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    return figure, list(panels[:, 0])


def _span(axes: Axes, row: int, low: float, high: float, width: float) -> None:
    axes.plot(
        [low, high], [row, row], color=COLOURS[0], lw=width, solid_capstyle="butt"
    )


def _name_rows(axes: Axes, layers: Sequence[Weights | Values], title: str) -> None:
    """Names the rows from top to bottom, with their bits."""
    names = [f"{one.name}  {one.bits} bits" for one in layers]
    axes.set_yticks(range(len(layers)), names, fontsize="small")
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_title(title)


def _number(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.2f}"
