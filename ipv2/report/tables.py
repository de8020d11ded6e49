"""Tables of a report: the headline, and all measures of a data set."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.report.parts import Cell, Column, Estimate, Table
from ipv2.measures.evaluation import INPUT
from ipv2.measures.full_measures import REMOVED
from ipv2.measures.metrics import REGIONS, WINDOWS
from ipv2.measures.tissues import TISSUES
from ipv2.report.numbers import DatasetNumbers, Path

_WINDOWS = {"lung": "lung window", "soft_tissue": "soft-tissue window", "full": "full"}
# More slices than that are in the CSV alone.
_MOST_SLICES = 500


class _Number(NamedTuple):
    """A column of numbers.

    Attributes:
      title: of the column.
      path: where an image's numbers have it.
      measure: of the glossary.
      digits: after the point.
    """

    title: str
    path: Path
    measure: str
    digits: int

    def column(self) -> Column:
        return Column(self.title, self.measure, self.digits)


_HEADLINE = (
    _Number("PSNR, lung window (dB)", ("psnr_db", "lung"), "PSNR", 2),
    _Number("PSNR, soft-tissue window (dB)", ("psnr_db", "soft_tissue"), "PSNR", 2),
    _Number("SSIM, lung window", ("ssim", "lung"), "SSIM", 4),
    *(
        _Number(f"bias, {tissue} (HU)", ("tissues", tissue, "bias_hu"), "bias", 1)
        for tissue in ("bone", "soft", "lung")
    ),
    _Number("slope of vessels", ("slopes", "vessels"), "slope", 2),
    _Number("outline (mm)", ("contour_mm",), "outline", 2),
)


def _by_window(name: str, key: str, measure: str, digits: int) -> list[_Number]:
    return [
        _Number(name.format(_WINDOWS[window]), (key, window), measure, digits)
        for window in WINDOWS
    ]


def _by_place(
    name: str, group: str, places: Iterable[str], key: str, measure: str
) -> list[_Number]:
    return [
        _Number(f"{name}, {place} (HU)", (group, place, key), measure, 1)
        for place in places
    ]


_FULL: Mapping[str, Sequence[_Number]] = {
    "By window": [
        *_by_window("PSNR, {} (dB)", "psnr_db", "PSNR", 2),
        *_by_window("SSIM, {}", "ssim", "SSIM", 4),
        *_by_window("RMSE, {} (HU)", "rmse_hu", "RMSE", 1),
        *_by_window("MAE, {} (HU)", "mae_hu", "MAE", 1),
    ],
    "By window, as seen": [
        *_by_window("GMSD, {}", "gmsd", "GMSD", 4),
        *_by_window("MS-SSIM, {}", "ms_ssim", "MS-SSIM", 4),
        *_by_window("VIF, {}", "vif", "VIF", 4),
        _Number(
            *("VIF of ldct-benchmark", ("vif_ldct_benchmark",)),
            *("VIF of ldct-benchmark", 4),
        ),
        _Number("noise index (HU)", ("noise_index_hu",), "noise index", 1),
    ],
    "Bias and noise by tissue": [
        *_by_place("bias", "tissues", TISSUES, "bias_hu", "bias"),
        *_by_place("noise", "tissues", TISSUES, "noise_sd_hu", "noise"),
    ],
    "Bias and noise by region": [
        *_by_place("bias", "regions", REGIONS, "bias_hu", "bias"),
        *_by_place("noise", "regions", REGIONS, "noise_sd_hu", "noise"),
        *_by_place(
            *("local noise", "regions", REGIONS, "local_noise_sd_hu", "local noise")
        ),
    ],
    "Edges, foci and texture": [
        _Number("foci, mean kept", ("dense_foci", "mean_kept"), "dense foci", 3),
        _Number("foci, peak kept", ("dense_foci", "peak_kept"), "dense foci", 3),
        _Number("slope of vessels", ("slopes", "vessels"), "slope", 3),
        _Number("slope of pleura", ("slopes", "pleura"), "slope", 3),
        *(
            _Number(f"{title} of {edge} (mm)", ("edge_rises", edge, key), "rise", 2)
            for edge in ("vessels", "pleura")
            for title, key in (
                ("rise", "rise_mm"),
                ("the reference's rise", "truth_rise_mm"),
            )
        ),
        _Number("outline (mm)", ("contour_mm",), "outline", 3),
        *(
            _Number(
                f"error's {which} frequency (1/mm)",
                *(("error_frequencies", f"{which}_per_mm"), "error frequency", 3),
            )
            for which in ("peak", "mean")
        ),
    ],
    "Edges in what was removed": [
        _Number(key.replace("_", " "), ("removed", key), "removed edges", 4)
        for key in REMOVED
    ],
}


def headline_table(datasets: Sequence[DatasetNumbers]) -> Table:
    """Returns the numbers that readers ask for first, a row for each image.

    Args:
      datasets: with what was measured.
    """
    over = sorted({one.block["interval_over"] for one in datasets})
    note = (
        f"Means over slices with 95 % intervals over {' or '.join(over)} (bootstrap). "
        if over
        else "Nothing was measured."
    )
    if "slices" in over:
        note += "Intervals over slices are of one patient, and say nothing of others."
    return Table(
        title="Headline numbers",
        columns=[
            *(Column("data set"), Column("image")),
            *(number.column() for number in _HEADLINE),
        ],
        rows=[
            [one.name, image, *_cells(one, image, _HEADLINE)]
            for one in datasets
            for image in one.images
        ],
        note=note.strip(),
    )


def full_tables(numbers: DatasetNumbers) -> list[Table]:
    """Returns the tables of all that was measured on a data set.

    Measures that no image has are left out; a measure that is not defined is not.

    Args:
      numbers: of the data set.
    """
    tables = []
    for title, columns in _FULL.items():
        there = [number for number in columns if numbers.has(number.path)]
        if not there:
            continue
        with_it = [
            image
            for image in numbers.images
            # Nothing was removed from the input.
            if not (image == INPUT and there[0].path[0] == "removed")
        ]
        tables.append(
            Table(
                title=title,
                columns=[Column("image"), *(number.column() for number in there)],
                rows=[[image, *_cells(numbers, image, there)] for image in with_it],
            )
        )
    return tables


def slices_table(numbers: DatasetNumbers) -> Table | None:
    """Returns the lung-window PSNR of every slice; None without slices.

    Without an aligned reference, the RMSE against the label.

    Args:
      numbers: of the data set.
    """
    if not numbers.rows:
        return None
    path: Path = ("psnr_db", "lung") if numbers.aligned else ("rmse_hu", "full")
    title, measure, digits = (
        ("PSNR, lung window (dB)", "PSNR", 2)
        if numbers.aligned
        else (f"RMSE against {numbers.block['label']} (HU)", "RMSE", 1)
    )
    values = [numbers.values(image, path) for image in numbers.images]
    rows: list[list[Cell]] = [
        [
            *(row["patient"], row["name"], row["slice"]),
            *(_defined(of_image[index]) for of_image in values),
        ]
        for index, row in enumerate(numbers.rows[:_MOST_SLICES])
    ]
    left = len(numbers.rows) - len(rows)
    return Table(
        title=f"Every slice: {title}",
        columns=[
            *(Column("patient"), Column("volume"), Column("slice", digits=0)),
            *(Column(image, measure, digits) for image in numbers.images),
        ],
        rows=rows,
        note=f"{left} more slices are in the CSV." if left else "",
    )


def distance_tables(numbers: DatasetNumbers) -> list[Table]:
    """Returns FID and KID, a table for each extractor of features; [] without any.

    Args:
      numbers: of the data set.
    """
    extractors = dict.fromkeys(
        name for block, _ in numbers.blocks.values() for name in _distances(block)
    )
    return [_distance_table(numbers, extractor) for extractor in extractors]


def _distance_table(numbers: DatasetNumbers, extractor: str) -> Table:
    rows, notes = [], {}
    for image, (block, own) in numbers.blocks.items():
        one = _distances(block).get(extractor, {}).get(own)
        if one is None:
            continue
        notes[one["note"]] = None
        rows.append(
            [
                *(image, one["images"], one["fid"], one["fid_held_out"]),
                *(one["fid_floor"], _span(one["kid"]), one["kid_held_out"]),
                _span(one["kid_floor"]),
            ]
        )
    return Table(
        title=f"Distances of the features of {extractor}",
        columns=[
            *(Column("image"), Column("slices", digits=0)),
            *(Column("FID", "FID"), Column("FID, held out", "FID")),
            *(Column("FID, floor", "FID"), Column("KID", "KID", 4)),
            *(Column("KID, held out", "KID", 4), Column("KID, floor", "KID", 4)),
        ],
        rows=rows,
        note=" ".join(filter(None, notes)),
    )


def _distances(block: Mapping[str, Any]) -> Mapping[str, Any]:
    return block.get("distances", {})


def nodule_tables(details: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Returns what is kept of nodules, a table for each tissue.

    Args:
      details: a data set's part of the key `detail` of results, by image.
    """
    first = next(iter(details.values()))
    return [_nodule_table(tissue, details, first) for tissue in first["nodules"]]


def tissue_words(tissue: str) -> str:
    """Returns what nodules lie in, by the key of results."""
    return "soft tissue" if tissue == "soft" else tissue


def _nodule_table(
    tissue: str, details: Mapping[str, Mapping[str, Any]], first: Mapping[str, Any]
) -> Table:
    found = {
        shown: detail["nodules"][tissue][own]
        for shown, own, detail in _images_of_details(details)
    }
    kinds = next(iter(found.values()))
    return Table(
        title=f"Inserted nodules in {tissue_words(tissue)}",
        columns=[
            *(Column("nodule"), Column("image"), Column("nodules", digits=0)),
            Column("contrast kept", "contrast kept"),
            Column("density error (HU)", "density error", 1),
            Column("diameter error (mm)", "diameter error"),
            *(Column("d'", "d'"), Column("worth a dose of", "equivalent dose", 3)),
        ],
        rows=[
            [kind, image, *_nodule_cells(by_kind[kind])]
            for kind in kinds
            for image, by_kind in found.items()
        ],
        note=f"At a dose of {first['dose']:g}; the observer {first['observer']}.",
    )


def _images_of_details(
    details: Mapping[str, Mapping[str, Any]],
) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Yields (name shown, own name, detail); what runs have in common once."""
    first = next(iter(details.values()))
    images = next(iter(first["nodules"].values()))
    yield from ((name, name, first) for name in images if name != "output")
    for run, detail in details.items():
        if "output" in next(iter(detail["nodules"].values())):
            yield run, "output", detail


def _nodule_cells(one: Mapping[str, Any]) -> list[Cell]:
    contrast, density = one["contrast_kept"], one["density_error_hu"]
    return [
        one["count"],
        _span(contrast, "mean"),
        _span(density, "mean"),
        one["diameter_error_mm"],
        _span(one["d_prime"]),
        _dose(one["equivalent_dose"]),
    ]


def _dose(worth: Mapping[str, Any]) -> Cell:
    if worth["dose"] is not None:
        return _span(worth, "dose")
    if worth["note"].startswith("not reached"):
        return "more"
    return "less" if worth["note"].startswith("reached") else None


def _span(one: Mapping[str, Any], key: str = "value") -> Estimate | None:
    """Returns a value with its interval, if that has two ends."""
    if one[key] is None:
        return None
    ends = (one["low"], one["high"])
    low, high = (None, None) if None in ends else ends
    return Estimate(one[key], low, high, one.get("n"))


def _cells(
    numbers: DatasetNumbers, image: str, columns: Sequence[_Number]
) -> list[Cell]:
    return [numbers.estimate(image, number.path) for number in columns]


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
