"""What the scenarios share: their registry, and folders that must not change."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.trust_checks.batch_rows import Bench
from tests.benchmarks.trust_checks.rows import Row, row
from tests.benchmarks.trust_checks.running import Ran

# (bench, an empty folder) -> what is wrong.
Check = Callable[[Bench, Path], list[str]]


class Scenario(NamedTuple):
    """Some commands, one after the other, and what is wrong with what they left.

    Attributes:
      name: of the scenario.
      task: that it is about.
      check: runs it.
      refused: whether the right end is a refusal.
    """

    name: str
    task: str
    check: Check
    refused: bool = True


def scenario_rows(scenarios: list[Scenario], bench: Bench) -> Iterator[Row]:
    """Runs each in a folder of its own."""
    for name, task, check, refused in scenarios:
        folder = Path(tempfile.mkdtemp(dir=bench.folder))
        problems = [text.replace(str(folder), "") for text in check(bench, folder)]
        shutil.rmtree(folder)
        yield row(name, task, problems, refused=refused)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to tell whether it changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def changed(before: dict[str, bytes], folder: Path) -> list[str]:
    """What is no longer as it was; files that came are not told."""
    after = contents(folder)
    return [
        f"{name} was {'changed' if name in after else 'removed'}"
        for name, content in before.items()
        if after.get(name) != content
    ]


def refusal(ran: Ran, *words: str) -> list[str]:
    """What is wrong with a command that must be refused with some words."""
    if ran.end != "refused":
        return [f"must be refused: {ran.last}"]
    return [
        f"{word!r} is not said: {ran.last}" for word in words if word not in ran.text
    ]


def completion(ran: Ran) -> list[str]:
    """What is wrong with a command that must go through."""
    return [] if ran.end == "done" else [ran.last]
