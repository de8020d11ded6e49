"""Draws images of HU at fixed windows, each with its scale."""

import math

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from common.report.parts import ViewedSlice
from common.report.plots import WIDTH, figure_png

LUNG_HU = (-1350.0, 150.0)
"""The lung window, -600 / 1500."""
DIFFERENCE_HU = 20.0
"""Differences are shown from minus this to this."""
_GREY = ScalarMappable(Normalize(*LUNG_HU), "gray")
_SIGNED = ScalarMappable(Normalize(-DIFFERENCE_HU, DIFFERENCE_HU), "RdBu_r")
_COLUMNS = 4
_BAR = 0.6
"""Inches of a scale below images."""
_DPI = 150


def difference_png(one: ViewedSlice) -> bytes:
    """Returns a PNG of a slice: input, float, quantized, and quantized minus float.

    Args:
      one: with images of these names.
    """
    figure = Figure(figsize=(WIDTH, 1.25 * WIDTH), layout="constrained")
    panels = figure.subplots(2, 2)
    for axes, name in zip(panels.flat, ("input", "float", "quantized"), strict=False):
        _show(axes, one.images[name], _GREY, name)
    difference = one.images["quantized"].astype(np.float32) - one.images["float"]
    _show(panels[1, 1], difference, _SIGNED, "quantized - float")
    for column, scale, label in ((0, _GREY, "HU"), (1, _SIGNED, "difference, HU")):
        figure.colorbar(
            scale, ax=panels[:, column], location="bottom", label=label, extend="both"
        )
    return figure_png(figure, _DPI)


def images_png(hu: Float[np.ndarray, "n h w"]) -> bytes:
    """Returns a PNG of images in the lung window, four in a row."""
    rows = math.ceil(len(hu) / _COLUMNS)
    size = (WIDTH, rows * WIDTH / _COLUMNS + _BAR)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, image in zip(panels.flat, hu, strict=False):
        _show(axes, image, _GREY)
    figure.colorbar(_GREY, ax=panels, location="bottom", label="HU", extend="both")
    return figure_png(figure, _DPI)


def _show(
    axes: Axes, image: np.ndarray, scale: ScalarMappable, title: str = ""
) -> None:
    axes.set_axis_off()
    axes.set_title(title, fontsize="small")
    low, high = scale.get_clim()
    axes.imshow(image, cmap=scale.cmap, vmin=low, vmax=high, interpolation="nearest")
