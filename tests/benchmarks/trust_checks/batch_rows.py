"""Runs cases on `denoise` and `simulate` in a batch with a plain series."""

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.trust_checks import dicom_checks as checks
from tests.benchmarks.trust_checks.image_checks import file_problems
from tests.benchmarks.trust_checks.rows import Row, row
from tests.benchmarks.trust_checks.running import Ran, run_keys
from tests.cases import writing
from tests.cases.case import Case, Truth
from tests.cases.source import Source

# Names of folders that no message holds; it might hold the name of a case.
GOOD, ODD = "aaa", "zzz"
_IMAGES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What all rows share.

    Attributes:
      source: the plain series.
      small: the same with fewer pixels, for `purify`, which compiles slowly.
      folder: for inputs and results.
      network: a workdir with the exported network.
    """

    source: Source
    small: Source
    folder: Path
    network: Path


def batch_keys(task: str, root: Path, output: Path) -> dict[str, object]:
    """Returns the config keys of input and output."""
    if task == "denoise":
        return {"denoise.input": str(root), "denoise.output": str(output)}
    return {"data.input": str(root), "output": str(output)}


def batch_rows(cases: Sequence[Case], task: str, bench: Bench) -> Iterator[Row]:
    """Runs cases that share their keys in one batch and yields their rows.

    A stopped batch makes all its cases wrong, and messages about many files may be
    shortened. Cases that are wrong for such a reason run again alone.
    """
    for (made, by_others), case in zip(
        _together(cases, task, bench), cases, strict=True
    ):
        if made.verdict == "wrong" and by_others and len(cases) > 1:
            made, _ = _together([case], task, bench)[0]
        yield made


def _together(cases: Sequence[Case], task: str, bench: Bench) -> list[tuple[Row, bool]]:
    """Builds cases beside a plain series, runs the task on all, and checks each.

    Returns:
      A row for each, and whether other cases may have made it wrong.
    """
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    root, output = folder / "in", folder / "out"
    good = writing.plain(root / GOOD, _few(bench.source))
    names = [f"{ODD}{index:03d}" for index in range(len(cases))]
    truths = [
        case.build(root / name, bench.source)
        for case, name in zip(cases, names, strict=True)
    ]
    keys = batch_keys(task, root, output) | dict(cases[0].keys)
    ran = run_keys(task, bench.network, keys)
    ran = ran._replace(text=ran.text.replace(str(folder), ""))
    batch = []
    if ran.end == "traceback":
        batch.append(ran.last)
    elif ran.end != "done":
        batch.append(f"the batch ended: {ran.last}")
    if cases[0].keys.get("data.multiframe"):
        batch += _frame_problems(cases[0], task, root / GOOD, output / GOOD, good)
    else:
        for name, want in good.items():
            batch += _plain_problems(task, output / GOOD / name, want)
    rows = []
    for case, name, truth in zip(cases, names, truths, strict=True):
        said = ran._replace(text=_lines_on(name, ran.text))
        is_read = any(p.is_file() for p in (output / name).rglob("*"))
        refused = case.outcome == "refused" or (
            case.outcome == "either" and not is_read
        )
        if batch:
            problems = batch
        elif refused:
            problems = refusal_problems(case, name, said, is_read)
        else:
            problems = read_problems(case, name, task, said, folder, truth)
        by_others = bool(batch or case.lists or not said.text)
        rows.append((row(case.name, task, problems, refused=refused), by_others))
    shutil.rmtree(folder)
    return rows


def _lines_on(name: str, text: str) -> str:
    """Returns the lines that name a case, and the indented lines below them."""
    kept, is_about = [], False
    for line in text.splitlines():
        if re.search(rf"{GOOD}|{ODD}\d", line):
            is_about = name in line
        elif not line.startswith((" ", "\t")):
            is_about = False
        if is_about:
            kept.append(line)
    return "\n".join(kept)


def refusal_problems(case: Case, name: str, ran: Ran, is_read: bool) -> list[str]:
    """Returns what is wrong with a case that must be named, explained and left out."""
    problems = []
    if is_read:
        problems.append("was read, but must be refused")
    elif name not in ran.text:
        problems.append("is left out, but no message names it")
    elif not re.search(case.says, ran.text):
        problems.append(f"the reason does not match {case.says!r}: {_reason(ran)}")
    return problems


def read_problems(
    case: Case, odd: str, task: str, ran: Ran, folder: Path, truth: Truth
) -> list[str]:
    """Returns what is wrong with the results and messages of a case that is read."""
    root, output = folder / "in", folder / "out"
    if not any(p.is_file() for p in (output / odd).rglob("*")):
        return [f"must be read: {_reason(ran)}"]
    problems = [
        f"{name} is not named as not used"
        for name in case.lists
        if name not in ran.text
    ]
    if case.outcome == "read" and case.says and not re.search(case.says, ran.text):
        problems.append(f"no message matches {case.says!r}")
    if case.name.startswith("frames"):
        return problems + _frame_problems(case, task, root / odd, output / odd, truth)
    for name, want in truth.items():
        found = _file_problems(task, root / odd / name, output / odd / name, want)
        listed = {problem.split()[0] for problem in problems}
        problems += [problem for problem in found if problem.split()[0] not in listed]
    kinds = (".json", ".raw", ".RAW")
    written = [p for p in (output / odd).rglob("*") if p.suffix not in kinds]
    files = [p for p in written if p.is_file()]
    if len(files) != len(truth):
        problems.append(f"{len(files)} files, right are {len(truth)}")
    if any(name.lower().endswith(_IMAGES) for name in truth):
        return problems
    uids = {checks.read_dicom(path).SOPInstanceUID for path in files}
    if len(uids) != len(files):
        problems.append(f"{len(uids)} SOPInstanceUIDs for {len(files)} slices")
    return problems


def _frame_problems(
    case: Case, task: str, root: Path, output: Path, truth: Truth
) -> list[str]:
    """Returns frames whose place or HU is wrong, in a classic series or as frames."""
    before = [frame for name in truth for frame in checks.frames_of(root / name)]
    hu = [
        image for want in truth.values() for image in want.reshape(-1, *want.shape[-2:])
    ]
    files = [p for p in output.rglob("*") if p.is_file()]
    files = [path for path in files if path.suffix != ".json"]
    after = [frame for path in files for frame in checks.frames_of(path)]
    if len(before) != len(after):
        return [f"{len(after)} frames, right are {len(before)}"]
    problems = []
    if case.keys.get("data.multiframe") and len(files) != 1:
        problems.append(f"{len(files)} files in place of one multi-frame file")
    for frame, want in zip(before, hu, strict=True):
        same = [f for f in after if f.position == frame.position]
        if len(same) != 1 or same[0].orientation != frame.orientation:
            problems.append(f"{len(same)} frames at {frame.position}")
        else:
            problems += checks.hu_problems(task, same[0].hu, want)
    return problems


def _file_problems(
    task: str, source: Path, result: Path, want: np.ndarray
) -> list[str]:
    if not result.is_file():
        return [f"{result.parent.name}/{result.name} is not there"]
    is_image = source.name.lower().endswith(_IMAGES)
    check = file_problems if is_image else checks.slice_problems
    return check(task, source, result, want)


def _plain_problems(task: str, result: Path, want: np.ndarray) -> list[str]:
    """Returns what is wrong with the plain series of the same batch."""
    if not result.is_file():
        return ["the rest of the batch is not done"]
    return checks.hu_problems(task, checks.hu_of(checks.read_dicom(result)), want)


def _reason(ran: Ran) -> str:
    """Returns the line that names the case, or how the task ended."""
    lines = [line for line in ran.text.splitlines() if line.strip()]
    return (lines[-1].strip() if lines else ran.end)[-220:]


def _few(source: Source) -> Source:
    return Source(hu=source.hu[:2], headers=source.headers[:2])
