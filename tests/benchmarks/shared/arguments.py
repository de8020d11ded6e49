"""The command line that all benchmarks share."""

import argparse
import sys
from collections.abc import Callable, Sequence


def create_parser(docstring: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help is a benchmark's docstring, line by line."""
    return argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse(
    parser: argparse.ArgumentParser,
    command_line: Sequence[str] | None,
    smoke: Sequence[str] | Callable[[], Sequence[str]],
) -> argparse.Namespace:
    """Parses a benchmark's command line, and adds `--smoke` to it.

    `--smoke` stands for other arguments: those of a run that takes seconds and goes
    through the same code. Arguments beside it override them.

    Args:
      parser: has the benchmark's own arguments.
      command_line: without the program's name; None: that of the process.
      smoke: the arguments that `--smoke` stands for, or a function that first writes
        the files they name.
    """
    parser.add_argument(
        "--smoke", action="store_true", help="run in seconds, with tiny data"
    )
    words = list(sys.argv[1:] if command_line is None else command_line)
    if "--smoke" in words:
        words = [*(smoke() if callable(smoke) else smoke), *words]
    return parser.parse_args(words)
