"""What the scenarios share: their type, and checks of folders and of ends."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.trust_checks.batch_rows import Bench
from tests.benchmarks.trust_checks.rows import Row, row
from tests.benchmarks.trust_checks.running import Ran

# (bench, an empty folder) -> problems.
Check = Callable[[Bench, Path], list[str]]


class Scenario(NamedTuple):
    """A sequence of commands with a check of their results.

    Attributes:
      name: name of the scenario.
      task: the task that it checks.
      check: runs the commands and returns what is wrong.
      refused: whether a refusal is the right end.
    """

    name: str
    task: str
    check: Check
    refused: bool = True


def scenario_rows(scenarios: list[Scenario], bench: Bench) -> Iterator[Row]:
    """Runs each scenario in a new folder."""
    for name, task, check, refused in scenarios:
        folder = Path(tempfile.mkdtemp(dir=bench.folder))
        problems = [text.replace(str(folder), "") for text in check(bench, folder)]
        shutil.rmtree(folder)
        yield row(name, task, problems, refused=refused)


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def changed(before: dict[str, bytes], folder: Path) -> list[str]:
    """Returns the files that were changed or removed; ignores new ones."""
    after = contents(folder)
    return [
        f"{name} was {'changed' if name in after else 'removed'}"
        for name, content in before.items()
        if after.get(name) != content
    ]


def refusal(ran: Ran, *words: str) -> list[str]:
    """Returns what is wrong with a command that must be refused with some words."""
    if ran.end != "refused":
        return [f"must be refused: {ran.last}"]
    return [
        f"no {word!r} in the message: {ran.last}"
        for word in words
        if word not in ran.text
    ]


def completion(ran: Ran) -> list[str]:
    """Returns what is wrong with a command that must succeed."""
    return [] if ran.end == "done" else [ran.last]
