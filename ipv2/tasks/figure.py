"""Pictures of one slice side by side, in one window."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from common.files import replacing
from ipv2.measures.metrics import WINDOWS, Window

_PANEL_INCHES = 2.8


def save_comparison(
    path: str | os.PathLike[str],
    images: Mapping[str, np.ndarray],
    *,
    window: Window = WINDOWS["lung"],
    captions: Mapping[str, str] | None = None,
    inset: tuple[int, int, int] | None = None,
    reference: str | None = None,
    title: str = "",
) -> None:
    """Writes a PNG: one column per image, with up to three rows.

    The rows are the whole slice; a magnified square, if `inset` is given; and, if
    `reference` is given, the difference from it within that square (or the whole
    slice), from -width / 5 to width / 5 HU. The file appears whole or not at all.

    Args:
      path: Where to write; its folder must exist.
      images: (h, w) HU by name, all of one size, in the order of the columns.
      window: The window of all columns, printed above.
      captions: Lines of numbers under the columns' names, by image.
      inset: (top row, left column, side) of the square, in pixels.
      reference: The name of the image to subtract.
      title: Printed before the window.

    Raises:
      ValueError: There is no image, sizes differ, a name is unknown, or the inset is
        not inside the image.
    """
    captions = captions or {}
    _check(images, captions, inset, reference)
    rows = 1 + (inset is not None) + (reference is not None)
    figure = Figure(
        figsize=(_PANEL_INCHES * len(images), (_PANEL_INCHES + 0.1) * rows + 0.9),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(images), squeeze=False)
    grey = {"cmap": "gray", "vmin": window.low_hu, "vmax": window.high_hu}
    limit = window.width_hu / 5
    for column, (name, image) in enumerate(images.items()):
        panels = [(image, grey)]
        detail = (slice(None), slice(None))
        if inset is not None:
            top, left, side = inset
            detail = (slice(top, top + side), slice(left, left + side))
            panels.append((image[detail], grey))
            axes[0, column].add_patch(
                Rectangle((left, top), side, side, fill=False, color="gold", lw=0.8)
            )
        if reference is not None:
            difference = (image - images[reference])[detail]
            signed = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            panels.append((difference, signed))
        for row, (panel, colours) in enumerate(panels):
            axes[row, column].imshow(panel, interpolation="nearest", **colours)
            axes[row, column].set_axis_off()
        caption = captions.get(name, "")
        axes[0, column].set_title(f"{name}\n{caption}".rstrip(), fontsize=9)
    words = [f"window {window} HU (centre/width)"]
    if reference is not None:
        words.append(f"bottom: difference from {reference}, ±{limit:g} HU")
    figure.suptitle("\n".join(filter(None, [title, ", ".join(words)])), fontsize=10)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _check(images, captions, inset, reference) -> None:
    if not images:
        raise ValueError("there is no image to show")
    shapes = {name: np.shape(image) for name, image in images.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 2:
        raise ValueError(f"images must be (h, w) of one size, got {shapes}")
    unknown = set(captions) | ({reference} if reference is not None else set())
    unknown -= set(images)
    if unknown:
        raise ValueError(f"no image is called {sorted(unknown)}; got {list(images)}")
    if inset is not None:
        top, left, side = inset
        height, width = next(iter(shapes.values()))
        inside = top >= 0 and left >= 0 and side > 0
        if not (inside and top + side <= height and left + side <= width):
            raise ValueError(f"inset {inset} is not inside {height}x{width} pixels")
