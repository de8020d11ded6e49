"""Draws samples with the teacher's attention."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acq.classifier import Record
from acq.diagnosis.diagnosis import Diagnosis
from common.report.plots import figure_png

_DPI = 100
_TILE = 96
"""Smallest side of a sample in the picture, in pixels; smaller images are enlarged."""
_LARGEST_TILE = 128
"""Largest side of a sample; larger images are drawn smaller."""
_GAP, _PAIR_GAP = 6, 10
"""White pixels after a sample, and additional ones after a pair."""
_TEXT_GAP = 18
"""White pixels for a line of text below a sample."""
_LEFT, _TOP = 100, 70
"""Margins for text, in pixels."""
_HEAT = matplotlib.colormaps["inferno"]
_HEAT_SHARE = 0.55
_RED = (0.85, 0.1, 0.1)


def samples_png(diagnosis: Diagnosis, record: Record) -> bytes:
    """Returns a PNG of the example samples, with one row per class.

    Each sample has a copy beside it under the teacher's attention. Heat colours are
    bright at the maximum of each map, a cross marks the requested centre and a circle
    the achieved centre. Two close neighbours are a pair of one class and centre. A red
    line under a sample means that the teacher sees another class in it.

    Args:
      diagnosis: of the samples.
      record: of the teacher; converts its inputs to images.
    """
    examples = diagnosis.examples
    plain = _enlarged(_to_rgb(examples.images, record))
    heated = _under_heat(plain, examples.attention)
    tiles = _lay_out(examples.label, plain, heated, gap=_GAP)
    canvas, size = tiles.canvas, tiles.size
    for y, x in zip(
        tiles.top[~examples.recognised], tiles.left[~examples.recognised], strict=True
    ):
        canvas[y + size + 1 : y + size + 4, x : x + 2 * size] = _RED

    figure, axes = _canvas_axes(canvas, scale=_scale(size))
    corner = np.stack([tiles.left + size, tiles.top], axis=1)
    for centers, marker, colour, name in (
        (examples.requested, "x", "cyan", "centre requested"),
        (examples.achieved, "o", "white", "centre achieved"),
    ):
        _mark(axes, corner + ((centers + 1) * size - 1) / 2, marker, colour, name)
    axes.plot([], [], color=_RED, label="another class is seen")
    names = [
        f"class {k}\n{diagnosis.recognised[k]} of {diagnosis.drawn[k]}\nrecognised"
        for k in tiles.classes
    ]
    _name_rows(axes, tiles, names)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.3,
        facecolor="lightgrey",
        fontsize="small",
    )
    return figure_png(figure, _DPI)


def modes_png(diagnosis: Diagnosis, record: Record) -> bytes:
    """Returns a PNG of the example samples' attention in both modes, a row per class.

    Each sample is under its attention in evaluation mode, and beside it in training
    mode. Heat colours are bright at the maximum of each map. The number below is the
    cosine of the two maps.

    Args:
      diagnosis: of the samples.
      record: of the teacher; converts its inputs to images.
    """
    examples = diagnosis.examples
    plain = _enlarged(_to_rgb(examples.images, record))
    scale = _scale(plain.shape[1])
    gap = round(_TEXT_GAP / scale)
    tiles = _lay_out(
        examples.label,
        _under_heat(plain, examples.attention),
        _under_heat(plain, examples.train_attention),
        gap=gap,
    )
    figure, axes = _canvas_axes(tiles.canvas, scale=scale)
    for x, y, cosine in zip(tiles.left, tiles.top, examples.cosine, strict=True):
        middle, below = x + tiles.size, y + tiles.size + gap / 2
        axes.text(
            middle, below, f"{cosine:.3f}", ha="center", va="center", fontsize="small"
        )
    _name_rows(axes, tiles, [f"class {k}" for k in tiles.classes])
    axes.set_title("evaluation mode | training mode, their cosine", fontsize="medium")
    return figure_png(figure, _DPI)


class _Tiles(NamedTuple):
    """Pairs of images on a canvas.

    Attributes:
      canvas: white, with the images.
      size: side of an image.
      top: of each pair of images.
      left: of each pair of images.
      classes: of the rows.
    """

    canvas: Float[np.ndarray, "h w 3"]
    size: int
    top: Int[np.ndarray, "n"]
    left: Int[np.ndarray, "n"]
    classes: Int[np.ndarray, "k"]


def _lay_out(
    label: Int[np.ndarray, "n"],
    first: Float[np.ndarray, "n s s 3"],
    second: Float[np.ndarray, "n s s 3"],
    *,
    gap: int,
) -> _Tiles:
    """Returns a canvas with a row per class, and two images for each sample.

    Args:
      label: of the samples, sorted.
      first: left images.
      second: right images.
      gap: pixels below a row.
    """
    classes, row = np.unique(label, return_inverse=True)
    column = np.arange(len(row)) - np.searchsorted(label, label)
    size = first.shape[1]
    top = row * (size + gap)
    left = column * (2 * size + _GAP) + column // 2 * _PAIR_GAP
    canvas = np.ones((max(top) + size + gap, max(left) + 2 * size, 3))
    for i, (y, x) in enumerate(zip(top, left, strict=True)):
        canvas[y : y + size, x : x + size] = first[i]
        canvas[y : y + size, x + size : x + 2 * size] = second[i]
    return _Tiles(canvas, size, top, left, classes)


def _scale(size: int) -> float:
    return min(1.0, _LARGEST_TILE / size)


def _name_rows(axes: Axes, tiles: _Tiles, names: Sequence[str]) -> None:
    rows = np.unique(tiles.top)
    axes.set_yticks(rows + tiles.size / 2, names)


def _to_rgb(
    images: Float[np.ndarray, "n h w c"], record: Record
) -> Float[np.ndarray, "n h w 3"]:
    """Returns colours in [0, 1]; other than three channels become their mean, grey."""
    unit = np.asarray(record.normalisation.denormalise(jnp.asarray(images)))
    if unit.shape[-1] != 3:
        unit = np.repeat(np.mean(unit, axis=-1, keepdims=True), 3, axis=-1)
    return np.clip(np.nan_to_num(unit), 0, 1)


def _enlarged(images: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n s s 3"]:
    """Returns the images with repeated pixels, so that each is at least a tile."""
    times = -(-_TILE // images.shape[1])
    return images.repeat(times, axis=1).repeat(times, axis=2)


def _under_heat(
    images: Float[np.ndarray, "n s s 3"], attention: Float[np.ndarray, "n h w"]
) -> Float[np.ndarray, "n s s 3"]:
    """Returns the images, mixed with heat colours of their attention."""
    size = images.shape[1]
    rows, columns = (_interpolation(n, size) for n in attention.shape[1:])
    smooth = rows @ np.nan_to_num(attention) @ columns.T
    peak = np.maximum(np.max(smooth, axis=(1, 2), keepdims=True), 1e-30)
    heat = _HEAT(smooth / peak)[..., :3]
    return (1 - _HEAT_SHARE) * images + _HEAT_SHARE * heat


def _interpolation(few: int, many: int) -> Float[np.ndarray, "many few"]:
    """Returns the matrix that interpolates `few` pixels linearly to `many` pixels."""
    at_few, at_many = ((2 * np.arange(n) + 1) / n for n in (few, many))
    return np.stack([np.interp(at_many, at_few, one) for one in np.eye(few)], axis=1)


def _canvas_axes(
    canvas: Float[np.ndarray, "h w 3"], scale: float
) -> tuple[Figure, Axes]:
    """Returns a figure with margins around the canvas; scale 1 keeps the pixels."""
    height, width = (round(scale * n) for n in canvas.shape[:2])
    whole = np.array([width + _LEFT, height + _TOP])
    figure = Figure(figsize=tuple(whole / _DPI))
    axes = figure.add_axes((_LEFT / whole[0], 0, width / whole[0], height / whole[1]))
    axes.imshow(canvas)
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize="small")
    axes.spines[:].set_visible(False)
    return figure, axes


def _mark(
    axes: Axes,
    places: Float[np.ndarray, "n 2"],
    marker: str,
    colour: str,
    name: str,
) -> None:
    """Draws coloured markers on broader black ones, to be visible everywhere."""
    for edge, width, label in (("black", 3.0, None), (colour, 1.5, name)):
        axes.plot(
            *places.T,
            marker,
            markersize=8,
            markeredgecolor=edge,
            markeredgewidth=width,
            markerfacecolor="none",
            label=label,
        )
