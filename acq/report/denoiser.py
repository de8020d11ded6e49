"""Composes the report of a quantized denoiser, for `report.html`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from acq.report import glossary
from acq.report.compose import (
    Circumstances,
    composed,
    config_section,
    curves_plot,
    time_words,
)
from acq.report.hu_pictures import (
    DIFFERENCE_HU,
    LUNG_HU,
    difference_png,
    images_png,
)
from acq.report.naming import bits_word
from common.report.parts import (
    Cell,
    Column,
    Part,
    Picture,
    Report,
    Section,
    Table,
    ViewedSlice,
    Viewer,
)

TISSUES = ("air", "lung", "fat", "soft", "bone")
COLUMNS: Mapping[str, Column] = {
    "psnr_full_db": Column("truth, dB", glossary.PSNR),
    "psnr_to_float_db": Column("float, dB", glossary.PSNR_TO_FLOAT),
    **{f"bias_{one}_hu": Column(f"{one}, HU", glossary.BIAS) for one in TISSUES},
    "noise_soft_hu": Column("noise, HU", glossary.NOISE),
    "contour_mm": Column("outline, mm", glossary.OUTLINE),
}
"""By the measure that a network's judge names so."""

_PSNR = "psnr_full_db"
_GENERATOR = (
    *("train/generator_loss", "train/generator_statistics"),
    *("train/generator_center", "train/generator_consistency"),
)
_STUDENT = ("train/student_loss", "train/student_output", "train/student_hint")
_WINDOW = f"{LUNG_HU[0]:g} to {LUNG_HU[1]:g} HU (lung window)"
Rows = Mapping[str, Mapping[str, float | None]]


def denoiser_report(
    results: Mapping[str, Any],
    views: Sequence[ViewedSlice],
    generated: Float[np.ndarray, "n h w"] | None,
    circumstances: Circumstances,
    *,
    student_metrics: Path,
    generator_metrics: Path,
) -> Report:
    """Returns the report of a quantized denoiser.

    Args:
      results: the content of `results.json`.
      views: slices with the images `input`, `float` and `quantized`.
      generated: HU of the generator's images; None if nothing learned.
      circumstances: how the report came about.
      student_metrics: the student's `metrics.jsonl`; it may be missing.
      generator_metrics: the generator's; it may be missing.
    """
    tables = [_table(dataset, rows) for dataset, rows in results["judged"].items()]
    plots = (
        curves_plot("Student", student_metrics, _STUDENT),
        curves_plot("Generator", generator_metrics, _GENERATOR),
    )
    sections = [
        Section("Slices that the network has not seen", _slices(views)),
        Section("All rows, means over slices", tables),
        Section("Images of the generator", _generated(generated)),
        Section("Training", [plot for plot in plots if plot is not None]),
        config_section(circumstances),
    ]
    return composed(
        verdict(results),
        _facts(results, circumstances),
        _headline(results["judged"]),
        sections,
        results["warnings"],
        circumstances,
    )


def verdict(results: Mapping[str, Any]) -> str:
    """Returns what came out, in one sentence made from the numbers."""
    told = [
        text
        for dataset, rows in results["judged"].items()
        if (text := _in_words(dataset, rows))
    ]
    start = f"{bits_of(results)} of {results['network']}"
    if not told:
        return f"{start}: no PSNR was measured."
    return f"{start}: {'; '.join(told)}."


def moved_most(rows: Rows, name: str) -> tuple[str, float] | None:
    """Returns the tissue whose bias differs most from the float network's, in HU.

    Args:
      rows: of a data set, with `float`.
      name: of the row.

    Returns:
      Tissue and difference; None if no tissue was measured.
    """
    keys = {tissue: f"bias_{tissue}_hu" for tissue in TISSUES}
    moved = {
        tissue: mean - before
        for tissue, key in keys.items()
        if (mean := rows[name].get(key)) is not None
        and (before := rows["float"].get(key)) is not None
    }
    return max(moved.items(), key=lambda one: abs(one[1])) if moved else None


def _in_words(dataset: str, rows: Rows) -> str:
    """Returns the quantized network against the float one; '' without PSNR."""
    ours, floats = rows["quantized"].get(_PSNR), rows["float"].get(_PSNR)
    if ours is None or floats is None:
        return ""
    side = "below" if ours <= floats else "above"
    text = (
        f"on {dataset} {ours:.2f} dB against the truth, {abs(floats - ours):.2f} dB "
        f"{side} the float network"
    )
    moved = moved_most(rows, "quantized")
    if moved is not None:
        text += f", and {moved[0]} moves most of all tissues, by {moved[1]:+.1f} HU"
    return text


def bits_of(results: Mapping[str, Any]) -> str:
    """Returns "W4A4" of the results of a denoiser."""
    weight, activation = results["weight_bits"], results["activation_bits"]
    return bits_word({"weight": weight, "activation": activation})


def _facts(results: Mapping[str, Any], circumstances: Circumstances) -> dict[str, str]:
    bits, own = bits_of(results), results["first_last_bits"]
    if own:
        bits += f", first and last convolution {own} bits"
    steps = {
        f"steps of the {who}": f"{count:,}"
        for who in ("generator", "student")
        if (count := results[f"{who}_steps"])
    }
    facts = {
        "network": results["network"],
        "SHA-256 of the weights": str(results["teacher"].get("sha256", "")),
        "bits": bits,
        "ranges from": results["ranges_in_words"],
        **steps,
        "judged on": circumstances.data,
        "seed": str(results["seed"]),
        "version": circumstances.version,
        "time": time_words(results, circumstances.written),
        "machine": circumstances.machine,
    }
    return {name: text for name, text in facts.items() if text}


def _headline(judged: Mapping[str, Rows]) -> Table:
    """Returns the quantized network beside the input and the float network."""
    shown = ("input", "float", "quantized")
    return Table(
        "Float network and quantized network",
        (
            Column("data"),
            Column("image"),
            COLUMNS[_PSNR],
            Column("moved most, HU", glossary.MOVED),
            Column("tissue"),
            COLUMNS["noise_soft_hu"],
        ),
        [
            _headline_row(dataset, rows, name)
            for dataset, rows in judged.items()
            for name in shown
            if name in rows
        ],
    )


def _headline_row(dataset: str, rows: Rows, name: str) -> tuple[Cell, ...]:
    moved = moved_most(rows, name) if name == "quantized" else None
    tissue, hu = moved or (None, None)
    numbers = rows[name]
    noise = numbers.get("noise_soft_hu")
    return (dataset, _row_name(name), numbers.get(_PSNR), hu, tissue, noise)


def _table(dataset: str, rows: Rows) -> Table:
    return Table(
        dataset,
        (Column("image"), *COLUMNS.values()),
        [
            (_row_name(name), *(numbers.get(key) for key in COLUMNS))
            for name, numbers in rows.items()
        ],
        "Rows with ranges are rounding alone: nothing learned.",
    )


def _row_name(name: str) -> str:
    names = {
        "input": "input, low dose",
        "float": "float network",
        "quantized": "quantized network",
        "real": "rounded, ranges of real CT (oracle)",
    }
    return names.get(name, f"rounded, ranges of {name.replace('_', ' ')}")


def _slices(views: Sequence[ViewedSlice]) -> list[Part]:
    if not views:
        return []
    viewer = Viewer(
        "Input, networks and truth in HU",
        views,
        "Whole HU, in any window. Differences are from the float network.",
    )
    pictures = [
        Picture(
            one.name,
            difference_png(one),
            f"Grey: {_WINDOW}. Colours: the difference of whole HU, from "
            f"{-DIFFERENCE_HU:g} to {DIFFERENCE_HU:g} HU.",
        )
        for one in views
    ]
    return [viewer, *pictures]


def _generated(images: Float[np.ndarray, "n h w"] | None) -> list[Part]:
    if images is None:
        return []
    height, width = images.shape[1:]
    note = (
        f"Each of {height} x {width} pixels, {_WINDOW}. They match what BatchNorm "
        "keeps of the training images, and need not look like CT."
    )
    return [Picture("Drawn after its training", images_png(images), note)]
