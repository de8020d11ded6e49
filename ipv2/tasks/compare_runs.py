"""Task compare with `config.compare.runs`: finished runs, paired slice by slice.

    difference = number of a run - number of the first run,  on the same slice

Its mean has a 95 % interval by bootstrap over patients (over slices if there is one
patient). What slices have in common, such as a difficult patient, drops out of it, so
that it tells runs apart which the intervals of two tables do not.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.config import ConfigDict
from common.devices import is_first_process
from common.errors import UserError
from common.files import write_atomically
from common.text_table import format_table
from common.workdir import hold_workdir
from ipv2.measures.intervals import Summary, resampled_groups, summarise
from ipv2.tasks.pages import write_paired_page
from ipv2.tasks.result_files import IDENTITY, SCHEMA_VERSION, leaves
from ipv2.tasks.table_rows import sample_text, wrapped

_KEY = "config.compare.runs"
_FILES = ("results.json", "evaluation.json")
# Numbers of slices have six digits; other hardware sums in another order.
_SAME_INPUT = 1e-3
# What the short table shows.
_SHORT = (
    *("psnr_db.lung", "psnr_db.soft_tissue", "rmse_hu.full", "ssim.lung"),
    *("ms_ssim.lung", "gmsd.lung", "vif.lung", "noise_index_hu"),
    *(f"tissues.{t}.bias_hu" for t in ("lung", "soft", "bone")),
    *(f"tissues.{t}.noise_sd_hu" for t in ("lung", "soft")),
    *("slopes.vessels", "slopes.pleura", "contour_mm"),
    *("edge_rises.vessels.rise_mm", "removed.slope_share"),
)

Results = Mapping[str, Any]


def compare_runs(config: ConfigDict, workdir: Path) -> None:
    """Writes `paired.json`, `.txt` and a page of finished runs; prints the table.

    Args:
      config: a checked IPv2 config, of which `compare.runs` counts.
      workdir: the folder.

    Raises:
      UserError: a run is not finished, or the runs do not compare.
    """
    runs = {name: _read(Path(name)) for name in config.compare.runs}
    _require_alike(runs)
    compared = differences_of(runs)
    text = format_differences(compared, short=True)
    with hold_workdir(workdir, "task compare"):
        if is_first_process():
            path = workdir / "paired.json"
            write_atomically(path, json.dumps(compared, indent=2) + "\n")
            full = format_differences(compared, short=False)
            write_atomically(workdir / "paired.txt", full + "\n")
            write_paired_page(workdir / "report.html", compared, runs)
            print(f"\n{text}\n\nAll measures: {workdir / 'paired.txt'}")


def differences_of(runs: Mapping[str, Results]) -> dict[str, Any]:
    """Returns the paired differences of each run from the first, by data set.

    Args:
      runs: results of the same slices, by the name of the run.

    Returns:
      `schema_version`; `first`, the name of the first run; and `datasets.NAME` with
      `label`, `n_slices`, `n_patients`, `interval_over` and `runs.RUN.MEASURE`: `first`
      and `other`, the means over the slices that both have a number of; `difference`,
      the mean of other - first, `sd`, `interval` and `n`. Measures are named by their
      keys, 'psnr_db.lung'.
    """
    (name, first), *others = runs.items()
    blocks = {}
    for dataset, block in first["datasets"].items():
        rows = _slices_of(first, dataset)
        over, groups = resampled_groups([row["patient"] for row in rows])
        blocks[dataset] = {
            **{key: block[key] for key in ("label", "n_slices", "n_patients")},
            "interval_over": over,
            "runs": {
                other: _paired(rows, _slices_of(results, dataset), groups)
                for other, results in others
            },
        }
    return {"schema_version": SCHEMA_VERSION, "first": name, "datasets": blocks}


def _paired(
    first: Sequence[Results], other: Sequence[Results], groups: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns the differences of every measure that both have."""
    before, after = _numbers(first), _numbers(other)
    found = {}
    for key in before:
        if key not in after:
            continue
        known = np.isfinite(before[key]) & np.isfinite(after[key])
        means = [
            float(values[known].mean()) if known.any() else None
            for values in (before[key], after[key])
        ]
        paired = summarise(np.where(known, after[key] - before[key], np.nan), groups)
        found[key] = {"first": means[0], "other": means[1], **_as_json(paired)}
    return found


def _as_json(one: Summary) -> dict[str, Any]:
    interval = None if one.low is None else [one.low, one.high]
    return {"difference": one.mean, "sd": one.sd, "interval": interval, "n": one.n}


def _numbers(rows: Sequence[Results]) -> dict[str, np.ndarray]:
    """Returns the output's numbers of every slice by measure; NaN for none."""
    by_slice = [
        {".".join(path): value for path, value in leaves(row["output"])} for row in rows
    ]
    keys = dict.fromkeys(key for numbers in by_slice for key in numbers)
    return {
        key: np.array([one.get(key) for one in by_slice], np.float64) for key in keys
    }


def _slices_of(results: Results, dataset: str) -> list[Results]:
    return [row for row in results["slices"] if row["dataset"] == dataset]


def _read(given: Path) -> Results:
    """Returns the results of a run's folder, or of a file.

    Raises:
      UserError: there are none, or they are of another task or version.
    """
    names = [given / name for name in _FILES] if given.is_dir() else [given]
    path = next((path for path in names if path.is_file()), None)
    if path is None:
        raise UserError(
            f"{_KEY}: {given} holds no {' or '.join(_FILES)}. Give the folders of "
            "finished trainings or evaluations, or such files."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{_KEY}: {path}: damaged ({error}).") from error
    if not isinstance(found, dict) or "slices" not in found:
        raise UserError(
            f"{_KEY}: {path}: not the results of a training or an evaluation. A task "
            "compare holds several: give the folders of its trainings, NETWORK/PAIRS."
        )
    if (version := found.get("schema_version")) != SCHEMA_VERSION:
        raise UserError(
            f"{_KEY}: {path}: keys of version {version or 1}, accepted: "
            f"{SCHEMA_VERSION}. Evaluate the run again: --task evaluate."
        )
    if not found["n_slices"]:
        raise UserError(f"{_KEY}: {path}: nothing was held out to measure.")
    if not all("output" in row for row in found["slices"]):
        raise UserError(f"{_KEY}: {path}: it holds filters alone, no output.")
    return found


def _require_alike(runs: Mapping[str, Results]) -> None:
    """Raises UserError unless runs measured the same slices against the same label."""
    (name, first), *others = runs.items()
    for other, results in others:
        _require_same_labels(name, first, other, results)
        places = [[_place(row) for row in one["slices"]] for one in (first, results)]
        if places[0] != places[1]:
            alone = [sorted(set(a) - set(b)) for a, b in (places, places[::-1])]
            raise _not_alike(
                f"{name} has {len(places[0])} slices, {other} {len(places[1])}; "
                + _only(name, alone[0])
                + _only(other, alone[1])
                + "give both the same data, split and config.evaluate.slices"
            )
        for row, theirs in zip(first["slices"], results["slices"], strict=True):
            _require_same_input(name, row, other, theirs)


def _require_same_labels(
    name: str, first: Results, other: str, results: Results
) -> None:
    labels = [
        {dataset: block["label"] for dataset, block in one["datasets"].items()}
        for one in (first, results)
    ]
    if labels[0] != labels[1]:
        raise _not_alike(
            f"{name} was measured against {labels[0]}, {other} against {labels[1]}. "
            "Evaluate both with the same data and config.evaluate.label"
        )


def _require_same_input(name: str, row: Results, other: str, theirs: Results) -> None:
    """Raises UserError if the inputs' RMSE differ: other images or another label."""
    ours, its = (one["input"]["rmse_hu"]["full"] for one in (row, theirs))
    if abs(ours - its) > _SAME_INPUT * max(ours, its):
        raise _not_alike(
            f"slice {row['slice']} of {row['name']} ({row['dataset']}): the input's "
            f"RMSE is {ours:g} HU in {name} and {its:g} HU in {other}, so the images "
            "differ: another dose, seed or purification of the label"
        )


def _place(row: Results) -> tuple[Any, ...]:
    return tuple(row[key] for key in IDENTITY)


def _only(name: str, places: Sequence[tuple[Any, ...]]) -> str:
    if not places:
        return ""
    dataset, patient, _, number = places[0]
    return f"{len(places)} only in {name} ({dataset}, {patient}, slice {number}); "


def _not_alike(reason: str) -> UserError:
    return UserError(f"{_KEY}: the runs do not compare: {reason}.")


def format_differences(compared: Mapping[str, Any], *, short: bool) -> str:
    """Returns a table for each run and data set.

    Args:
      compared: from `differences_of`.
      short: whether to show some of the measures only.
    """
    return "\n\n".join(
        _table(compared["first"], run, dataset, block, measures, short)
        for dataset, block in compared["datasets"].items()
        for run, measures in block["runs"].items()
    )


def _table(
    first: str,
    run: str,
    dataset: str,
    block: Mapping[str, Any],
    measures: Mapping[str, Mapping[str, Any]],
    short: bool,
) -> str:
    names = [key for key in _SHORT if key in measures] if short else list(measures)
    rows = [[name, *_cells(measures[name])] for name in names]
    over = block["interval_over"]
    alone = " (of one patient: they say nothing of others)" if over == "slices" else ""
    title = (
        f"{dataset} against {block['label']}, {sample_text(block)}: {run} "
        f"less {first}, paired; 95 % intervals over {over}{alone}"
    )
    head = ["measure", "first", "other", "difference", "95 % interval", "slices"]
    return format_table(head, rows, digits=0, title=wrapped(title))


def _cells(one: Mapping[str, Any]) -> list[str]:
    numbers = [_number(one[key]) for key in ("first", "other", "difference")]
    interval = one["interval"]
    text = "-" if interval is None else " .. ".join(map(_number, interval))
    return [*numbers, text, str(one["n"])]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
