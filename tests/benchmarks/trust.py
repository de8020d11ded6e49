"""Every difficult case, built, run, and judged by independent readers: a table.

Run `python -m tests.benchmarks.trust` from the root; `--series DIR` takes the middle
of a real CT series in place of the synthetic chest, `--group NAME` one of the table's
parts, `--only WORD` the cases whose names hold a word, `--all` prints what is right as
well. Ends with a count of each verdict, and in exit status 1 if anything is wrong.

  right         HU are what they should be, and each slice keeps its own geometry
  refused well  left out or refused for a reason that names the file or the key; nothing
                written, nothing touched, no traceback, the rest of the batch done
  wrong         anything else, with the reason
  not run       a tool is not installed; counts neither way

The cases are in `tests.cases`, the checks in `trust_checks`.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Nearly all time is compilation, see tests/conftest.py.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[2] / ".jax_cache")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from tests.benchmarks.trust_checks.batch_rows import Bench, batch_rows
from tests.benchmarks.trust_checks.command_rows import COMMANDS, MEMORY_ROWS
from tests.benchmarks.trust_checks.conformance_rows import conformance_rows
from tests.benchmarks.trust_checks.ownership_rows import OWNERSHIP
from tests.benchmarks.trust_checks.pair_rows import pair_row, purified_series_row
from tests.benchmarks.trust_checks.pairing_rows import PAIRING
from tests.benchmarks.trust_checks.rows import Row, counts
from tests.benchmarks.trust_checks.running import export_shift
from tests.benchmarks.trust_checks.scenarios import scenario_rows
from tests.benchmarks.trust_checks.stale_rows import STALE
from tests.cases.case import Case
from tests.cases.dicom_cases import DICOM_CASES
from tests.cases.image_cases import IMAGE_CASES
from tests.cases.pair_cases import PAIR_CASES, SIZE
from tests.cases.source import real, synthetic

# Cases in a batch: few enough that one which stops it costs little.
_TOGETHER = 16


def main() -> int:
    """Prints the table; returns the exit status."""
    arguments = _arguments()
    warnings.simplefilter("ignore")  # builders write what the standard forbids
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trust.") as name:
        bench = create_bench(Path(name).resolve(), arguments.series)
        rows = []
        for row in all_rows(bench, arguments.only, arguments.group):
            rows.append(row)
            if arguments.all or row.verdict in ("wrong", "not run"):
                print(row, flush=True)
    print(f"\n{len(rows)} rows in {time.monotonic() - started:.0f} s: {counts(rows)}")
    return 1 if any(row.verdict == "wrong" for row in rows) else 0


def create_bench(folder: Path, series: Path | None = None) -> Bench:
    """The plain series and an exported network, in a folder."""
    network = folder / "network"
    export_shift(network)
    if series is None:
        source, small = synthetic(), synthetic(size=SIZE)
    else:
        source, small = real(series), real(series, size=SIZE)
    return Bench(source=source, small=small, folder=folder, network=network)


def all_rows(bench: Bench, only: str = "", group: str = "") -> Iterator[Row]:
    """Every row, or those whose case holds a word, of all groups or one."""
    for name, rows in GROUPS.items():
        if group in ("", name):
            yield from rows(bench, only)


def _volume_rows(bench: Bench, only: str) -> Iterator[Row]:
    for task, cases in batches(_volumes(only)):
        yield from batch_rows(cases, task, bench)


def _purified_rows(bench: Bench, only: str) -> Iterator[Row]:
    for case in _volumes(only):
        if "purify" in case.tasks:
            yield purified_series_row(case, bench)


def _pair_rows(bench: Bench, only: str) -> Iterator[Row]:
    for case in PAIR_CASES:
        if only in case.name:
            yield from (pair_row(case, task, bench) for task in case.tasks)


def _scenario_rows(bench: Bench, only: str) -> Iterator[Row]:
    scenarios = [*PAIRING, *OWNERSHIP, *STALE, *COMMANDS, *MEMORY_ROWS]
    yield from scenario_rows([s for s in scenarios if only in s.name], bench)


def _conformance_rows(bench: Bench, only: str) -> Iterator[Row]:
    if only in "dciodvfy":
        yield from conformance_rows(bench)


def _volumes(only: str) -> list[Case]:
    return [case for case in (*DICOM_CASES, *IMAGE_CASES) if only in case.name]


GROUPS: dict[str, Callable[[Bench, str], Iterator[Row]]] = {
    "volumes": _volume_rows,
    "purified": _purified_rows,
    "pairs": _pair_rows,
    "scenarios": _scenario_rows,
    "dciodvfy": _conformance_rows,
}
"""The table's parts, and what makes the rows of each."""


def batches(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    """The cases that can be run together: those of a task and the same keys."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        for task in case.tasks:
            if task != "purify":
                groups.setdefault((task, repr(case.keys)), []).append(case)
    for (task, _), group in groups.items():
        for start in range(0, len(group), _TOGETHER):
            yield task, group[start : start + _TOGETHER]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=Path, help="folder of a real CT series")
    parser.add_argument("--only", default="", help="cases whose names hold this word")
    parser.add_argument("--group", choices=GROUPS, default="", help="a part alone")
    parser.add_argument("--all", action="store_true", help="print what is right too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
