"""Rows of the trust table: what came out, and whether that was right."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["right", "refused well", "wrong", "not run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A case on a task.

    Attributes:
      case: its name.
      task: what was run on it.
      verdict: of what came out.
      why: what is wrong, or why it was not run; '' if neither.
    """

    case: str
    task: str
    verdict: Verdict
    why: str = ""

    def __str__(self) -> str:
        """One line of the table."""
        return f"{self.task:10s} {self.case:34s} {self.verdict:13s} {self.why}".rstrip()


def row(case: str, task: str, problems: Sequence[str], *, refused: bool = False) -> Row:
    """A row from a list of problems: none is right, or refused well."""
    if problems:
        # What is only written otherwise comes after what is wrong.
        first = sorted(problems, key=lambda problem: "other text" in problem)
        why = "; ".join(first[:3])
        return Row(case=case, task=task, verdict="wrong", why=" ".join(why.split()))
    return Row(case=case, task=task, verdict="refused well" if refused else "right")


def counts(rows: Sequence[Row]) -> str:
    """How many rows there are of each verdict."""
    verdicts = [entry.verdict for entry in rows]
    told = ("right", "refused well", "wrong", "not run")
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in told)
