"""Nested mappings: the dotted keys of their leaves, and what two of them differ in."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

NOT_STATED = "not stated"


class Difference(NamedTuple):
    """A leaf that two nested mappings differ in.

    Attributes:
      key: of the leaf, "section.key".
      before: its value in the first; `NOT_STATED` if the first lacks it.
      now: its value in the second, likewise.
    """

    key: str
    before: Any
    now: Any


def flatten(nested: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields `("section.key", value)` for every leaf.

    Args:
      nested: a mapping, or a `ConfigDict`, which is none.
      prefix: goes before every key.
    """
    for key, value in nested.items():
        if hasattr(value, "items"):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Returns what two mappings, as JSON holds them, differ in; [] if they are equal.

    A leaf that one lacks is None there: files of before a key was added lack it.
    """
    first, second = dict(flatten(before)), dict(flatten(now))
    return [
        Difference(key, first.get(key, NOT_STATED), second.get(key, NOT_STATED))
        for key in dict.fromkeys([*second, *first])
        if first.get(key) != second.get(key)
    ]
