"""Rows of the trust table: a verdict on each case and task."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["right", "refused well", "wrong", "not run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A case on a task.

    Attributes:
      case: name of the case.
      task: name of the task.
      verdict: judges the result.
      why: what is wrong, or why it was not run; '' if neither.
    """

    case: str
    task: str
    verdict: Verdict
    why: str = ""

    def __str__(self) -> str:
        """Returns one line of the table."""
        return f"{self.task:10s} {self.case:34s} {self.verdict:13s} {self.why}".rstrip()


def row(case: str, task: str, problems: Sequence[str], *, refused: bool = False) -> Row:
    """Returns a row; without problems it is right, or refused well."""
    if problems:
        # Differences of wording alone come last.
        first = sorted(problems, key=lambda problem: "other text" in problem)
        why = "; ".join(first[:3])
        return Row(case=case, task=task, verdict="wrong", why=" ".join(why.split()))
    return Row(case=case, task=task, verdict="refused well" if refused else "right")


def counts(rows: Sequence[Row]) -> str:
    """Returns the number of rows of each verdict."""
    verdicts = [entry.verdict for entry in rows]
    order = ("right", "refused well", "wrong", "not run")
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in order)
