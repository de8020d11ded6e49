"""Runs folders of pairs on `purify` and `train`, and series on `purify`."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import PIL.Image

from tests.benchmarks.trust_checks import dicom_checks as checks
from tests.benchmarks.trust_checks.batch_rows import GOOD, ODD, Bench, refusal_problems
from tests.benchmarks.trust_checks.rows import Row, row
from tests.benchmarks.trust_checks.running import Ran, run_keys
from tests.cases import writing
from tests.cases.case import Case
from tests.cases.pair_cases import PairCase
from tests.cases.source import Source

SIDES = ("lq_bar", "gt_bar", "lung_mask")
TRAIN_KEYS: dict[str, Any] = {
    "model.width": 1,
    "model.name": "redcnn",
    "train.duration": "2 steps",
    "train.patch": 16,
    "evaluate.slices": 1,
    "evaluate.filters": (),  # files are checked here, not numbers
    "data.split": (0.5, 0.25, 0.25),
}


def purify_keys(root: Path, output: Path) -> dict[str, Any]:
    """Returns the config keys of input and output."""
    return {"data.root": str(root), "purify.output": str(output)}


def train_keys(root: Path, folder: Path) -> dict[str, Any]:
    """Returns the config keys of a training of two steps on a folder's pairs."""
    return {"data.root": str(root), "data.cache": str(folder / "cache")} | TRAIN_KEYS


def pair_row(case: PairCase, task: str, bench: Bench) -> Row:
    """Builds a folder of pairs, runs the task and checks what it did with each pair."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    root, output, workdir = folder / "in", folder / "out", folder / "work"
    case.build(root)
    keys = purify_keys(root, output) if task == "purify" else train_keys(root, folder)
    ran = run_keys(task, workdir, keys | dict(case.keys))
    ran = ran._replace(text=ran.text.replace(str(folder), ""))
    problems = _end_problems(case, ran)
    if not problems:
        problems += [
            f"{name or 'case'} has no message {says!r}"
            for name, says in case.bad.items()
            if not _has_message(ran.text, name, says)
        ]
    if not problems and case.says and not re.search(case.says, ran.text):
        problems.append(f"no message matches {case.says!r}")
    if not problems and ran.end == "done" and task == "purify":
        problems += _written_problems(case, root, output)
    if not problems and ran.end == "done" and task == "train":
        if not (workdir / "results.json").is_file():
            problems.append("no results.json")
    shutil.rmtree(folder)
    refused = case.ends == "refused" or (case.ends == "either" and ran.end != "done")
    return row(case.name, task, problems, refused=refused)


def _end_problems(case: PairCase, ran: Ran) -> list[str]:
    right = {"done": ("done",), "refused": ("refused",)}
    if ran.end not in right.get(case.ends, ("done", "refused")):
        return [ran.last]
    return []


def _has_message(text: str, name: str, says: str) -> bool:
    """Returns whether a line names a pair and it or the next two match `says`."""
    lines = text.splitlines()
    return any(
        name in line and re.search(says, " ".join(lines[index : index + 3]))
        for index, line in enumerate(lines)
    )


def _written_problems(case: PairCase, root: Path, output: Path) -> list[str]:
    problems = []
    for name in case.good:
        problems += [
            f"{side}/{name} is not there"
            for side in SIDES[:1]
            if not (output / side / name).exists()
        ]
    if not problems and case.good and case.good[0].endswith((".nii.gz", ".png")):
        problems += _outside_problems(root, output, case.good[0])
    problems += [
        f"{path.relative_to(output)} was written"
        for bad in case.bad
        for side in SIDES
        for path in (output / side).rglob("*")
        if path.is_file() and f"/{bad}" in f"/{path.relative_to(output / side)}"
    ]
    return problems


def _outside_problems(root: Path, output: Path, name: str) -> list[str]:
    """Returns where the input of a purified pair differs from lq outside the lung."""
    lq, bar, mask = (
        _values(path / name)
        for path in (root / "lq", output / "lq_bar", output / "lung_mask")
    )
    if lq.shape != bar.shape or mask.shape != bar.shape:
        return [f"{name}: shapes {bar.shape} and {mask.shape}, was {lq.shape}"]
    worst = float(np.abs(lq - bar)[mask == 0].max())
    return [f"{name}: off by {worst:g} outside the lung"] if worst > 1 else []


def _values(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        return np.asarray(PIL.Image.open(path), np.float64)
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj, np.float64)


def purified_series_row(case: Case, bench: Bench) -> Row:
    """Purifies a DICOM case as both sides of a pair and checks each slice of lq_bar."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    root, output = folder / "in", folder / "out"
    source = bench.small
    few = Source(hu=source.hu[:2], headers=source.headers[:2])
    for side in ("lq", "gt"):
        writing.plain(root / side / GOOD, few)
        truth = case.build(root / side / ODD, source)
    keys = purify_keys(root, output) | dict(case.keys)
    ran = run_keys("purify", folder / "work", keys)
    ran = ran._replace(text=ran.text.replace(str(folder), ""))
    problems = [] if ran.end == "done" else [ran.last]
    is_read = any(p.is_file() for p in output.rglob(f"*/{ODD}/*"))
    if not problems and case.outcome == "refused":
        problems += refusal_problems(case, ODD, ran, is_read)
    elif not problems:
        for name, want in truth.items():
            problems += _purified_slice_problems(root, output, name, want)
    shutil.rmtree(folder)
    return row(case.name, "purify", problems, refused=case.outcome == "refused")


def _purified_slice_problems(
    root: Path, output: Path, name: str, want: np.ndarray
) -> list[str]:
    source = root / "lq" / ODD / name
    made, mask = (output / side / ODD / name for side in ("lq_bar", "lung_mask"))
    if not made.is_file() or not mask.is_file():
        return [f"lq_bar/{ODD}/{name} is not there"]
    after = checks.read_dicom(made)
    outside = checks.hu_of(checks.read_dicom(mask)) < 0.5
    worst = float(np.abs(checks.hu_of(after) - want)[outside].max())
    problems = [f"HU off by {worst:g} outside the lung"] if worst > 0.51 else []
    return problems + checks.geometry_problems(checks.read_dicom(source), after)
