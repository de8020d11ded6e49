"""Every case of weights, networks, images and bits that the quantizer was tried on.

Run `python -m tests.benchmarks.acq_trust` from the root; `--only WORD` the cases whose
names hold a word, `--all` prints what is right as well. Ends with a count of each
verdict, and in exit status 1 if anything is wrong.

  right         loaded, with the values that the case was made of; or what a run may
                begin with, without a false warning; or the bits that were asked for
  refused well  an error, before any step, with the words that say what to do
  wrong         anything else, with the reason

The cases and what judges them are in `tests.acq.cases`.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Nearly all time is compilation, see tests/conftest.py.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[2] / ".jax_cache")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from absl import logging

from tests.acq.cases.all_cases import GROUPS
from tests.benchmarks.trust_checks.rows import Row, counts, row


def main() -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose names hold this word")
    parser.add_argument("--all", action="store_true", help="print what is right too")
    arguments = parser.parse_args()
    logging.get_absl_handler().setLevel("CRITICAL")
    started, rows = time.monotonic(), []
    for found in all_rows(arguments.only):
        rows.append(found)
        if arguments.all or found.verdict == "wrong":
            print(found, flush=True)
    print(f"\n{len(rows)} rows in {time.monotonic() - started:.0f} s: {counts(rows)}")
    return 1 if any(found.verdict == "wrong" for found in rows) else 0


def all_rows(only: str = "") -> Iterator[Row]:
    """A row for each case whose name holds a word."""
    for group, (judge, cases) in GROUPS.items():
        for case in cases:
            if only not in case.name:
                continue
            with (
                tempfile.TemporaryDirectory(prefix="trust.") as folder,
                contextlib.redirect_stderr(io.StringIO()),  # progress
            ):
                problems = judge(case, Path(folder))
            refused = case.outcome == "refused"
            yield row(case.name, group, problems, refused=refused)


if __name__ == "__main__":
    sys.exit(main())
