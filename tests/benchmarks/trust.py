"""Runs every difficult case, checks the results with independent readers: a table.

    python -m tests.benchmarks.trust [--series DIR] [--group NAME] [--only WORD ...]
        [--all] [--smoke]

`--series DIR` replaces the synthetic chest by the middle of a real CT series. `--group`
runs one part of the table, `--only` the cases whose names hold one of the words. The
table lists the rows that are wrong or were not run, with `--all` all of them. Its last
line counts each verdict. The exit status is 1 if a row is wrong.

  right         HU are what they should be, and each slice keeps its own geometry
  refused well  the program left the case out or refused it, and its message names the
                file or the key; it wrote and changed nothing, showed no traceback and
                finished the rest of the batch
  wrong         anything else; the row gives the reason
  not run       a tool is not installed; counts neither way

`tests.cases` holds the cases, `trust_checks` the checks.
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

from tests.compilation import compilation_environment

if __name__ == "__main__":  # pytest, which imports this too, has its own settings
    os.environ.update(compilation_environment())

from tests.benchmarks.shared.arguments import create_parser, parse
from tests.benchmarks.trust_checks.batch_rows import Bench, batch_rows
from tests.benchmarks.trust_checks.command_rows import COMMANDS
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

# Cases in a batch. One that stops its batch costs the rest of it.
_TOGETHER = 16


def main(command_line: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    arguments = _arguments(command_line)
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
    """Returns the plain series and an exported network, both in a folder."""
    network = folder / "network"
    export_shift(network)
    if series is None:
        source, small = synthetic(), synthetic(size=SIZE)
    else:
        source, small = real(series), real(series, size=SIZE)
    return Bench(source=source, small=small, folder=folder, network=network)


def all_rows(
    bench: Bench, words: Sequence[str] = ("",), group: str = ""
) -> Iterator[Row]:
    """Yields the rows of all groups or of one.

    Args:
      bench: the series and the network to run.
      words: yields only cases whose names hold one of these.
      group: a key of `GROUPS`; '' for all.
    """
    for name, rows in GROUPS.items():
        if group in ("", name):
            yield from rows(bench, words)


def _volume_rows(bench: Bench, words: Sequence[str]) -> Iterator[Row]:
    for task, cases in batches(_volumes(words)):
        yield from batch_rows(cases, task, bench)


def _purified_rows(bench: Bench, words: Sequence[str]) -> Iterator[Row]:
    for case in _volumes(words):
        if "purify" in case.tasks:
            yield purified_series_row(case, bench)


def _pair_rows(bench: Bench, words: Sequence[str]) -> Iterator[Row]:
    for case in PAIR_CASES:
        if _holds(case.name, words):
            yield from (pair_row(case, task, bench) for task in case.tasks)


def _scenario_rows(bench: Bench, words: Sequence[str]) -> Iterator[Row]:
    scenarios = [*PAIRING, *OWNERSHIP, *STALE, *COMMANDS]
    yield from scenario_rows([s for s in scenarios if _holds(s.name, words)], bench)


def _conformance_rows(bench: Bench, words: Sequence[str]) -> Iterator[Row]:
    if _holds("dciodvfy", words):
        yield from conformance_rows(bench)


def _volumes(words: Sequence[str]) -> list[Case]:
    return [case for case in (*DICOM_CASES, *IMAGE_CASES) if _holds(case.name, words)]


def _holds(name: str, words: Sequence[str]) -> bool:
    return any(word in name for word in words)


GROUPS: dict[str, Callable[[Bench, Sequence[str]], Iterator[Row]]] = {
    "volumes": _volume_rows,
    "purified": _purified_rows,
    "pairs": _pair_rows,
    "scenarios": _scenario_rows,
    "dciodvfy": _conformance_rows,
}
"""The function that makes the rows of each part of the table."""


def batches(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    """Yields a task and the cases that one run of it takes: they share all keys."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        for task in case.tasks:
            if task != "purify":
                groups.setdefault((task, repr(case.keys)), []).append(case)
    for (task, _), group in groups.items():
        for start in range(0, len(group), _TOGETHER):
            yield task, group[start : start + _TOGETHER]


def _arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser(__doc__)
    parser.add_argument("--series", type=Path, help="folder of a real CT series")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="words that names of cases hold"
    )
    parser.add_argument("--group", choices=GROUPS, default="", help="a part alone")
    parser.add_argument("--all", action="store_true", help="print what is right too")
    smoke = ["--all", "--only", "plain_nii_gz", "output_is_input"]
    return parse(parser, command_line, smoke)


if __name__ == "__main__":
    sys.exit(main())
