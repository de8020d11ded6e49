"""Scenarios: foreign files stay untouched; outputs do not lie in inputs."""

import functools
import os
import resource
from pathlib import Path
from typing import Any

from tests.benchmarks.trust_checks.batch_rows import Bench, batch_keys
from tests.benchmarks.trust_checks.pair_rows import purify_keys
from tests.benchmarks.trust_checks.running import Ran, run_keys
from tests.benchmarks.trust_checks.scenarios import (
    Scenario,
    changed,
    completion,
    contents,
    refusal,
)
from tests.cases import pair_cases, writing
from tests.cases.image_cases import by_sitk

_FOREIGN = b"not ours"


def run_on(task: str, bench: Bench, root: Path, output: Path, **keys: Any) -> Ran:
    """Runs a task on a folder, with another as its output."""
    if task == "purify":
        return run_keys(
            "purify", bench.folder / "none", purify_keys(root, output) | keys
        )
    return run_keys(task, bench.network, batch_keys(task, root, output) | keys)


def scans(task: str, bench: Bench, root: Path, suffix: str = "nii.gz") -> None:
    """Writes two sound patients, A and B."""
    if task == "purify":
        pair_cases.good(root, ("A", "B"))
    else:
        for patient in ("A", "B"):
            by_sitk(f"scan.{suffix}")(root / patient, bench.source)


def foreign(
    task: str,
    names: tuple[str, ...],
    bench: Bench,
    folder: Path,
    suffix: str = "nii.gz",
) -> list[str]:
    """Foreign files lie where results of A go: B is made, A is named and left."""
    root, output = folder / "in", folder / "out"
    scans(task, bench, root, suffix)
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(_FOREIGN)
    before = contents(output)
    ran = run_on(task, bench, root, output)
    problems = [ran.last] if ran.end == "traceback" else []
    problems += changed(before, output)
    if not problems and Path(names[0]).name not in ran.text:
        problems.append(f"{names[0]} is not named: {ran.last}")
    return problems


def foreign_series(bench: Bench, folder: Path) -> list[str]:
    """A foreign DICOM folder lies where a result goes."""
    root, output = folder / "in", folder / "out"
    pair_cases.series_pairs("p1", "p2")(root)
    writing.plain(output / "lq_bar/p1/series", bench.source)
    before = contents(output)
    ran = run_on("purify", bench, root, output)
    problems = [ran.last] if ran.end == "traceback" else []
    problems += changed(before, output)
    if len(list((output / "lq_bar/p1/series").iterdir())) != len(bench.source.hu):
        problems.append("files were put into a folder of others")
    return problems


def overwritten(bench: Bench, folder: Path) -> list[str]:
    """With overwrite=True a task replaces results that exist."""
    root, output = folder / "in", folder / "out"
    scans("denoise", bench, root)
    (output / "A").mkdir(parents=True)
    (output / "A/scan.nii.gz").write_bytes(_FOREIGN)
    ran = run_on("denoise", bench, root, output, **{"denoise.overwrite": True})
    problems = completion(ran)
    if (output / "A/scan.nii.gz").read_bytes() == _FOREIGN:
        problems.append("was not replaced")
    return problems


def nested(task: str, where: str, bench: Bench, folder: Path) -> list[str]:
    """The output lies in the input, is it, or holds it."""
    root = folder / "around" / "in"
    scans(task, bench, root)
    before = contents(folder)
    ran = run_on(task, bench, root, (root / where).resolve())
    problems = refusal(ran, "output") + changed(before, folder)
    if contents(folder).keys() - before.keys():
        problems.append("files were written")
    return problems


def blocked(task: str, bench: Bench, folder: Path) -> list[str]:
    """A file lies where A needs a folder: B is made, A is named."""
    root, output = folder / "in", folder / "out"
    scans(task, bench, root)
    side = "gt_bar" if task == "purify" else "."
    (output / side).mkdir(parents=True)
    (output / side / "A").write_bytes(_FOREIGN)
    ran = run_on(task, bench, root, output)
    problems = completion(ran)
    made = output / ("lq_bar" if task == "purify" else ".") / "B/scan.nii.gz"
    if not problems and not made.exists():
        problems.append("the rest of the batch is not done")
    if not problems and "/A" not in ran.text:
        problems.append("is not named")
    if (output / "lq_bar/A/scan.nii.gz").exists():
        problems.append("half of a result was written")
    return problems


def disk_full(task: str, bench: Bench, folder: Path) -> list[str]:
    """No file can grow to the size of a result: an error, and no partial file."""
    root, output = folder / "in", folder / "out"
    scans(task, bench, root, "nii")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        ran = run_on(task, bench, root, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    problems = [ran.last] if ran.end == "traceback" else []
    if "scan" not in ran.text:
        problems.append(f"no volume is named: {ran.last}")
    left = [p for p in output.rglob("*.nii") if p.is_file() and p.name[0] != "."]
    return problems + [f"{path.name} was left" for path in left[:1]]


def no_folder(task: str, bench: Bench, folder: Path) -> list[str]:
    """The output would lie below a file."""
    root = folder / "in"
    scans(task, bench, root)
    (folder / "file").write_bytes(_FOREIGN)
    ran = run_on(task, bench, root, folder / "file" / "out")
    return refusal(ran, "file")


def read_only(task: str, bench: Bench, folder: Path) -> list[str]:
    """The output is read-only. (The system still lets root write.)"""
    root, output = folder / "in", folder / "out"
    scans(task, bench, root)
    output.mkdir()
    output.chmod(0o500)
    if os.geteuid() == 0:
        # What no one can write to, root neither.
        output = Path("/proc/self/out")
    return refusal(run_on(task, bench, root, output), "out")


def foreign_config(bench: Bench, folder: Path) -> list[str]:
    """A config.json of another program lies in the output."""
    root, output = folder / "in", folder / "out"
    scans("purify", bench, root)
    output.mkdir()
    (output / "config.json").write_text("[1, 2]")
    before = contents(output)
    ran = run_on("purify", bench, root, output)
    problems = [ran.last] if ran.end == "traceback" else []
    return problems + changed(before, output)


_BATCH = ("denoise", "simulate")
OWNERSHIP = [
    Scenario(
        "foreign_file",
        "purify",
        functools.partial(foreign, "purify", ("gt_bar/A/scan.nii.gz",)),
    ),
    Scenario(
        "foreign_three_files",
        "purify",
        functools.partial(
            foreign,
            "purify",
            tuple(f"{s}/A/scan.nii.gz" for s in ("lq_bar", "gt_bar", "lung_mask")),
        ),
    ),
    Scenario("foreign_series", "purify", foreign_series),
    Scenario("foreign_config", "purify", foreign_config),
    *(
        Scenario(name, task, functools.partial(foreign, task, (path,), suffix=suffix))
        for task in _BATCH
        for name, path, suffix in (
            ("foreign_file", "A/scan.nii.gz", "nii.gz"),
            ("foreign_raw_beside_mhd", "A/scan.raw", "mhd"),
            ("foreign_record", "A/scan.nii.gz.json", "nii.gz"),
        )
    ),
    Scenario("overwrite_is_asked_for", "denoise", overwritten, refused=False),
    *(
        Scenario(f"output_{name}_input", task, functools.partial(nested, task, where))
        for task in (*_BATCH, "purify")
        for name, where in (("is", "."), ("in", "lq/x"), ("around", ".."))
    ),
    Scenario("output_is_lq", "purify", functools.partial(nested, "purify", "lq")),
    *(
        Scenario(name, task, functools.partial(check, task))
        for task in (*_BATCH, "purify")
        for name, check in (
            ("one_result_blocked", blocked),
            ("disk_full", disk_full),
            ("output_below_a_file", no_folder),
            ("output_read_only", read_only),
        )
    ),
]
