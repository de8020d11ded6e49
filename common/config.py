"""Checks of a whole config, which name all of its problems in one message."""

import difflib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ml_collections

from common.errors import UserError
from common.nested import flatten

ConfigDict = ml_collections.ConfigDict


class Rule(NamedTuple):
    """The values that one key accepts.

    Attributes:
      accepts: returns whether a value is accepted.
      words: the accepted values in words, for the message.
    """

    accepts: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def one_of(*choices: Any) -> Rule:
    """Returns the rule that takes one of `choices`."""
    return Rule(lambda v: v in choices, "one of " + ", ".join(map(repr, choices)))


def some_of(*choices: Any) -> Rule:
    """Returns the rule that takes a tuple of one or more of `choices`."""
    return Rule(
        lambda v: isinstance(v, tuple) and len(v) > 0 and set(v) <= set(choices),
        "a tuple of some of " + ", ".join(map(repr, choices)),
    )


def whole(at_least: int, at_most: float = math.inf) -> Rule:
    """Returns the rule that takes a whole number in [at_least, at_most]."""
    top = "" if at_most == math.inf else f", at most {at_most}"
    return Rule(
        lambda v: isinstance(v, int) and _is_number(v) and at_least <= v <= at_most,
        f"a whole number, at least {at_least}{top}",
    )


def number(
    *, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf
) -> Rule:
    """Returns the rule that takes a finite number in the given range."""
    bounds = [
        f"above {above}" if above > -math.inf else "",
        f"at least {at_least}" if at_least > -math.inf else "",
        f"at most {at_most}" if at_most < math.inf else "",
    ]
    return Rule(
        lambda v: (
            _is_number(v)
            and math.isfinite(v)
            and v > above
            and at_least <= v <= at_most
        ),
        "a number " + (" and ".join(b for b in bounds if b) or "(finite)"),
    )


def boolean() -> Rule:
    """Returns the rule that takes True or False."""
    return Rule(lambda v: isinstance(v, bool), "True or False")


def text() -> Rule:
    """Returns the rule that takes a string, the empty one too."""
    return Rule(lambda v: isinstance(v, str), "a text")


def existing_path(*, or_empty: bool = True) -> Rule:
    """Returns the rule that takes a path that exists."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return os.path.exists(value) if value else or_empty

    return Rule(accepts, "a path that exists" + (" (or '')" if or_empty else ""))


def rule_problems(config: ConfigDict, rules: Mapping[str, Rule]) -> list[str]:
    """Lists the keys with a value that their rule refuses, a line each."""
    values = dict(flatten(config))
    return [
        f"{key}: got {values[key]!r}, accepted: {rule.words}"
        for key, rule in rules.items()
        if key in values and not rule.accepts(values[key])
    ]


def refuse(problems: Iterable[str]) -> None:
    """Raises one error that names every problem, if there are any.

    Raises:
      UserError: `problems` is not empty.
    """
    found = list(problems)
    if found:
        count = "a problem" if len(found) == 1 else f"{len(found)} problems"
        lines = "\n".join(f"  config.{line}" for line in found)
        raise UserError(f"{count} in the config:\n{lines}")


def refuse_unknown_keys(config: ConfigDict, names: Iterable[str]) -> None:
    """Raises one error for the overrides that name no key; names the closest keys.

    Args:
      config: the config of the recipe, without overrides.
      names: dotted names without the leading `config.`.

    Raises:
      UserError: a name is not a key.
    """
    leaves = [key for key, _ in flatten(config)]
    sections = {k.rsplit(".", n)[0] for k in leaves for n in range(1, k.count(".") + 1)}
    lines = []
    for name in names:
        if name in leaves:
            continue
        if name in sections:
            inside = [k for k in leaves if k.startswith(name + ".")]
            hint = "it is a section; its keys: " + ", ".join(inside)
        else:
            close = difflib.get_close_matches(name, leaves, n=3, cutoff=0.5)
            last = name.rsplit(".", 1)[-1]
            close += [k for k in leaves if k.rsplit(".", 1)[-1] == last]
            close = list(dict.fromkeys(close)) or leaves
            hint = "closest keys: " + ", ".join(f"config.{k}" for k in close)
        lines.append(f"  --config.{name}: no such key; {hint}")
    if lines:
        raise UserError(
            "the command sets keys that the config does not have:\n" + "\n".join(lines)
        )


def to_steps(duration: int | str, steps_per_epoch: float, key: str) -> int:
    """Returns a duration in whole steps, at least 1.

    Args:
      duration: steps as a number, or "<number> steps" or "<number> epochs".
      steps_per_epoch: examples over batch size; need not be whole.
      key: the config key, for the message.

    Raises:
      UserError: the text is in neither form, or the number is not positive.
    """
    if isinstance(duration, int):
        count, unit = float(duration), "steps"
    else:
        amount, _, unit = duration.strip().partition(" ")
        try:
            count = float(amount)
        except ValueError:
            count = math.nan
        unit = (unit.strip() or "steps").removesuffix("s") + "s"
    if not (count > 0 and math.isfinite(count) and unit in ("steps", "epochs")):
        raise UserError(
            f"config.{key}: got {duration!r}, accepted: a positive number of steps, "
            "or a text such as '500 steps' or '2.5 epochs'"
        )
    return max(1, round(count * (steps_per_epoch if unit == "epochs" else 1.0)))


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as JSON holds it, with lists in place of tuples."""
    return json.loads(config.to_json_best_effort())
