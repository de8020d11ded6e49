"""Runs every case of weights, networks, images and bits on the quantizer: a table.

    python -m tests.benchmarks.acq_trust [--only WORD ...] [--all] [--smoke]

`--only` runs the cases whose names hold one of the words. The table lists the rows that
are wrong, with `--all` all of them. Its last line counts each verdict. The exit status
is 1 if a row is wrong.

  right         the run loads the values that the case was made with, or can start
                without a false warning, or has the bits that the case sets
  refused well  the run stops with an error before any step, and the message has the
                words that say what to do
  wrong         anything else; the row gives the reason

`tests.acq.cases` holds the cases and the functions that judge them.
"""

import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.compilation import compilation_environment

if __name__ == "__main__":  # pytest, which imports this too, has its own settings
    os.environ.update(compilation_environment())

from absl import logging

from tests.acq.cases.all_cases import GROUPS
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.benchmarks.trust_checks.rows import Row, counts, row


def main(command_line: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    parser = create_parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="words that names of cases hold"
    )
    parser.add_argument("--all", action="store_true", help="print what is right too")
    smoke = ["--all", "--only", "akamaster", "logits_alone", "nine_bits"]
    arguments = parse(parser, command_line, smoke)
    logging.get_absl_handler().setLevel("CRITICAL")
    started, rows = time.monotonic(), []
    for found in all_rows(arguments.only):
        rows.append(found)
        if arguments.all or found.verdict == "wrong":
            print(found, flush=True)
    print(f"\n{len(rows)} rows in {time.monotonic() - started:.0f} s: {counts(rows)}")
    return 1 if any(found.verdict == "wrong" for found in rows) else 0


def all_rows(words: Sequence[str] = ("",)) -> Iterator[Row]:
    """Yields a row for each case whose name holds one of the words."""
    for group, (judge, cases) in GROUPS.items():
        for case in cases:
            if not any(word in case.name for word in words):
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
