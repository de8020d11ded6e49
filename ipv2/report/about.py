"""What a report says of a run beside its numbers, and how it becomes a report."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.report.parts import Report, Section, Table, Text
from ipv2.report.glossary import glossary_of
from ipv2.report.numbers import OUTPUT


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What a report says of a run beside its numbers.

    Attributes:
      title: of the report.
      network: what the verdict calls the network.
      facts: what was run, in the order to show.
      doses: of the input, a share of the normal dose, by data set, where it is known.
      warnings: what a reader must know before trusting the numbers.
      notes: how numbers of a data set came about, by data set.
      texts: such as the config.
      metrics: `metrics.jsonl` of the trainings, by what to call them.
    """

    title: str
    network: str = OUTPUT
    facts: Mapping[str, str]
    doses: Mapping[str, float] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    texts: Sequence[Text] = ()
    metrics: Mapping[str, Path] = dataclasses.field(default_factory=dict)


def composed(
    about: About, *, verdict: str, headline: Table, sections: Sequence[Section]
) -> Report:
    """Returns a report with the glossary of what it names, and the texts.

    Args:
      about: what to say beside the numbers.
      verdict: the sentence.
      headline: the first table.
      sections: all else; the texts follow them.
    """
    tables = [part for one in sections for part in one.parts if isinstance(part, Table)]
    last = [Section("How it was run", about.texts)] if about.texts else []
    return Report(
        title=about.title,
        verdict=verdict,
        facts=about.facts,
        headline=headline,
        sections=[*sections, *last],
        glossary=glossary_of([headline, *tables]),
        warnings=about.warnings,
    )
