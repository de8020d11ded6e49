"""Results of evaluations as tables, of at most 120 columns, one set for each data set.

A row is an image: the input, a filter's, or a network's output.
"""

from collections.abc import Mapping
from typing import Any

from common.text_table import format_table
from ipv2.measures.metrics import REGIONS, WINDOWS
from ipv2.measures.summary import image_names
from ipv2.measures.tissues import TISSUES
from ipv2.report.verdict import NO_RANKING
from ipv2.tasks.detail_tables import detail_tables, distances_tables
from ipv2.tasks.full_tables import further_tables
from ipv2.tasks.references import described_alignment
from ipv2.tasks.strengths import described_strength
from ipv2.tasks.table_rows import (
    Row,
    Rows,
    at,
    cells,
    means_table,
    row_of,
    sample_text,
    wrapped,
)

# (heading, where in an image's numbers, digits)
_HEADLINES = (
    ("PSNR dB\nlung", ("psnr_db", "lung"), 2),
    ("PSNR dB\nsoft", ("psnr_db", "soft_tissue"), 2),
    ("RMSE HU\nfull", ("rmse_hu", "full"), 1),
)
_WINDOWS = (
    f"windows: lung {WINDOWS['lung']}, soft tissue {WINDOWS['soft_tissue']}, full "
    f"range {WINDOWS['full']} HU"
)
_STRUCTURE = (
    ("foci\nmean", ("dense_foci", "mean_kept"), 2),
    ("foci\npeak", ("dense_foci", "peak_kept"), 2),
    ("slope\nvessels", ("slopes", "vessels"), 2),
    ("slope\npleura", ("slopes", "pleura"), 2),
    ("outline\nmm", ("contour_mm",), 2),
    ("error's mean\n1/mm", ("error_frequencies", "mean_per_mm"), 2),
)
_LOCAL_NOISE = tuple(
    (f"local noise\n{name}", ("regions", name, "local_noise_sd_hu"), 1)
    for name in REGIONS
)
# Of trainings of several networks, which are too many rows for several tables.
_GRID = (
    ("PSNR\nlung", ("psnr_db", "lung"), 2),
    ("PSNR\nsoft", ("psnr_db", "soft_tissue"), 2),
    ("RMSE\nfull", ("rmse_hu", "full"), 1),
    *((f"bias\n{t}", ("tissues", t, "bias_hu"), 1) for t in ("lung", "soft", "bone")),
    *((f"noise\n{t}", ("tissues", t, "noise_sd_hu"), 1) for t in ("lung", "soft")),
    ("slope\nvessel", ("slopes", "vessels"), 2),
    ("slope\npleura", ("slopes", "pleura"), 2),
    ("outline\nmm", ("contour_mm",), 2),
)


def format_results(
    results: Mapping[str, Any], *, title: str = "", full: bool = False
) -> str:
    """Returns the tables of one evaluation: input, filters and output.

    Args:
      results: the content of a `results.json`.
      title: what titles begin with.
      full: whether to add the tables of all other measures.
    """
    if not results["n_slices"]:
        return f"{title}: nothing was held out to measure".removeprefix(": ")
    tables = []
    for name, block in results["datasets"].items():
        head = f"{title}: {name}".removeprefix(": ")
        tables.append(_format_block(block, _rows_of(block), head, full))
        tables += distances_tables(block, head)
        if name in (detail := results.get("detail", {})):
            tables += detail_tables(name, detail[name], title)
        if "against_label" in block:
            label = block["against_label"]
            tables.append(_format_block(label, _rows_of(label), head, full))
    return "\n\n".join(tables)


def format_comparison(
    runs: Mapping[str, Mapping[str, Any]], *, title: str = "", full: bool = False
) -> str:
    """Returns the outputs of several runs below their common input and filters.

    Input and filters are those of the first run; that the others have the same is not
    checked.

    Args:
      runs: results by the name of the run.
      title: what titles begin with.
      full: whether to add the tables of all other measures.

    Raises:
      ValueError: there is no run, or the runs differ in data sets, in the number of
        slices or in the kind of reference.
    """
    if not runs:
        raise ValueError("there is no run to compare")
    _check_comparable(runs)
    first = next(iter(runs.values()))
    tables = []
    for name, block in first["datasets"].items():
        rows = _without_output(block) | {
            run_name: row_of(run["datasets"][name], "output")
            for run_name, run in runs.items()
        }
        head = f"{title}: {name}".removeprefix(": ")
        tables.append(_format_block(block, rows, head, full))
        for run_name, run in runs.items() if full else ():
            own = f"{title}: {run_name}".removeprefix(": ")
            tables += distances_tables(run["datasets"][name], f"{own}: {name}")
            if name in (detail := run.get("detail", {})):
                tables += detail_tables(name, detail[name], own)
    return "\n\n".join(tables)


def _check_comparable(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError if runs were not measured alike."""
    first_name, first = next(iter(runs.items()))
    for run_name, run in runs.items():
        if list(run["datasets"]) != list(first["datasets"]):
            raise ValueError(
                f"runs do not compare: {first_name} was measured on "
                f"{list(first['datasets'])} but {run_name} on {list(run['datasets'])}"
            )
        for dataset, block in run["datasets"].items():
            expected = first["datasets"][dataset]
            for key in ("label", "n_slices"):
                if block[key] != expected[key]:
                    raise ValueError(
                        f"runs do not compare: {key} is {expected[key]!r} for "
                        f"{first_name} but {block[key]!r} for {run_name}"
                    )


def format_grid(
    runs: Mapping[str, Mapping[str, Mapping[str, Any]]], captions: Mapping[str, str]
) -> str:
    """Returns one line per training in a table for each data set.

    Args:
      runs: {network: {pairs: results}}, all measured on the same slices against an
        aligned reference. The first lines are their common input and its filters.
      captions: what the table calls the pairs.
    """
    first = next(iter(next(iter(runs.values())).values()))
    return "\n\n".join(
        _format_grid_block(name, block, runs, captions)
        for name, block in first["datasets"].items()
    )


def _format_grid_block(
    dataset: str,
    block: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Mapping[str, Any]]],
    captions: Mapping[str, str],
) -> str:
    """Returns the table of one data set."""
    columns = [*_GRID]
    rows = [
        [f"({name})", "", *cells(row.mean, columns), None]
        for name, row in _without_output(block).items()
    ]
    rows += [
        [
            *(model, captions.get(pair, pair)),
            *cells(run["datasets"][dataset]["output"], columns),
            run.get("seconds"),
        ]
        for model, pairs in runs.items()
        for pair, run in pairs.items()
    ]
    table = format_table(
        ["network", "trained on", *(heading for heading, _, _ in columns), "s"],
        rows,
        digits=[0, 0, *(digits for _, _, digits in columns), 0],
        title=wrapped(
            f"{_title(block, dataset)}: means; PSNR in dB; RMSE, bias and noise in HU; "
            f"slopes as shares of the reference's; {_WINDOWS}"
        ),
    )
    return "\n".join([table, *_notes(block)])


def has_places(results: Mapping[str, Any]) -> bool:
    """Returns whether every data set was measured against an aligned reference."""
    return all("tissues" in block["output"] for block in results["datasets"].values())


def _rows_of(block: Mapping[str, Any]) -> dict[str, Row]:
    """Returns the rows of a block, the network's output last."""
    output = {"output": row_of(block, "output")} if "output" in block["n"] else {}
    return _without_output(block) | output


def _without_output(block: Mapping[str, Any]) -> dict[str, Row]:
    names = [name for name in image_names(block) if name != "output"]
    return {name: row_of(block, name) for name in names}


def _format_block(block: Mapping[str, Any], rows: Rows, head: str, full: bool) -> str:
    """Returns the tables of a data set against one reference."""
    tables = ["\n".join([_headlines(block, rows, head), *_notes(block)])]
    if all("tissues" in row.mean for row in rows.values()):
        tables += [_tissues(rows, head), _structure(rows, head)]
    else:
        tables.append(_regions(block, rows, head))
    if full:
        tables += further_tables(rows, head)
    return "\n\n".join(tables)


def _title(block: Mapping[str, Any], head: str) -> str:
    return f"{head} against {block['label']}, {sample_text(block)}"


def notes_of(block: Mapping[str, Any]) -> list[str]:
    """Returns what a reader of a block's numbers must know, in sentences."""
    notes = [described_alignment(block)]
    if block["label"] in ("v1", "v2"):
        notes.append(NO_RANKING)
    strengths = block.get("strengths", {})
    if strengths:
        told = [described_strength(name, one) for name, one in strengths.items()]
        notes.append(f"Strengths of the filters: {'; '.join(told)}.")
    return [note for note in notes if note]


def _notes(block: Mapping[str, Any]) -> list[str]:
    """Returns the lines below a data set's first table."""
    return [wrapped(note) for note in notes_of(block)]


def _headlines(block: Mapping[str, Any], rows: Rows, head: str) -> str:
    """Returns mean, deviation and interval of the numbers that papers report."""
    header, digits = ["image"], [0]
    for heading, _, places in _HEADLINES:
        header += [heading, "sd", "95 %\ninterval"]
        digits += [places, places, 0]
    header.append("SSIM\nlung")
    cells = [
        [name, *_headline_cells(row), at(row.mean, ("ssim", "lung"))]
        for name, row in rows.items()
    ]
    over = block["interval_over"]
    alone = " (of one patient: they say nothing of others)" if over == "slices" else ""
    return format_table(
        header,
        cells,
        digits=[*digits, 4],
        title=wrapped(
            f"{_title(block, head)}: means, sd between slices, 95 % intervals over "
            f"{over}{alone}; {_WINDOWS}"
        ),
    )


def _headline_cells(row: Row) -> list[Any]:
    cells: list[Any] = []
    for _, path, digits in _HEADLINES:
        interval = at(row.interval, path)
        text = "-"
        if interval is not None:
            text = "..".join(f"{value:.{digits}f}" for value in interval)
        cells += [at(row.mean, path), at(row.sd, path), text]
    return cells


def _tissues(rows: Rows, head: str) -> str:
    """Returns bias and noise of the tissues, and how many slices have them."""
    columns = [
        (f"{title}\n{tissue}", ("tissues", tissue, key), 1)
        for title, key in (("bias", "bias_hu"), ("noise", "noise_sd_hu"))
        for tissue in TISSUES
    ]
    count = next(iter(rows.values())).n
    last = ["slices", *cells(count, columns)]
    title = f"{head}: bias and noise in HU by tissue, means"
    return means_table(rows, columns, title, last)


def _structure(rows: Rows, head: str) -> str:
    """Returns what happened to foci, edges, outline and texture."""
    columns = [*_STRUCTURE, *_LOCAL_NOISE]
    count = next(iter(rows.values())).n
    last = ["slices", *cells(count, columns)]
    title = (
        f"{head}: share of dense foci and of slopes that is kept, lungs' outline, "
        "frequency of the error, local noise in HU"
    )
    return means_table(rows, columns, title, last)


def _regions(block: Mapping[str, Any], rows: Rows, head: str) -> str:
    """Returns noise and bias by region."""
    columns = [
        (f"{title}\n{region}", ("regions", region, key), 1)
        for title, key in (("noise", "noise_sd_hu"), ("bias", "bias_hu"))
        for region in REGIONS
    ]
    title = f"{head}: by region in HU; bias against {block['label']}; noise: "
    return means_table(rows, columns, title + block["noise"])
