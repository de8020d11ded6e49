"""Numbers of a network that follow the size of its images.

A network is traced for images of several sizes, all multiples of a unit. A number that
is not the same in all traces is a `Varying`: its value in each of them. With p and q,
height and width in units, such a number is

    a + b p + c q + d p q

as sides, and products of two sides, are. Four traces give the integers a, b, c and d,
the fifth tests them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from common.errors import UserError


class DependsOnSizeError(UserError):
    """A network computes something of the images' size that a graph cannot follow."""


class Varying(tuple[int, ...]):
    """A number that differs between the traces; its value in each."""

    __slots__ = ()


Side: TypeAlias = int | Varying
"""A number that is the same in all traces, or one that is not."""


class Differing(NamedTuple):
    """A constant that differs between the traces; its array in each."""

    arrays: tuple[np.ndarray, ...]


class Sizes(NamedTuple):
    """The sizes of images that a network is traced for.

    Attributes:
      unit: of which every height and width is a multiple, in pixels.
      least: the smallest height and width in units.
    """

    unit: int
    least: int

    @property
    def pixels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each trace."""
        steps = ((0, 0), (1, 0), (0, 1), (1, 1), (3, 2))
        return tuple(
            ((self.least + i) * self.unit, (self.least + j) * self.unit)
            for i, j in steps
        )

    def factors(self, number: Varying) -> tuple[int, int, int, int]:
        """Returns a, b, c, d of a number, see above.

        Raises:
          DependsOnSizeError: it has no such form.
        """
        start, down, right, both, test = number
        least = self.least
        d = both - down - right + start
        b, c = down - start - d * least, right - start - d * least
        a = start - (b + c) * least - d * least**2
        p, q = least + 3, least + 2
        if test != a + b * p + c * q + d * p * q:
            raise DependsOnSizeError(
                f"a side of a tensor is {tuple(number)} for images of {self.pixels}: "
                "it neither is the same, nor grows with height and width"
            )
        return a, b, c, d


def product(sides: Sequence[Side]) -> Side:
    """Returns the product of numbers; 1 of none."""
    return _number(_values(sides).prod(0))


def difference(first: Side, second: Side) -> Side:
    """Returns first - second."""
    values = _values((first, second))
    return _number(values[0] - values[1])


def is_less(first: Side, second: Side) -> bool:
    """Returns whether a number is less in the first trace where two differ."""
    values = _values((first, second))
    unequal = values[0] != values[1]
    return bool(unequal.any()) and bool((values[0] < values[1])[unequal.argmax()])


def merged(found: Sequence[Any]) -> Any:
    """Returns what traces have in common, with numbers that differ as `Varying`.

    Args:
      found: the same thing in each trace; tuples are merged part by part.

    Raises:
      DependsOnSizeError: the traces differ in more than numbers.
    """
    first = found[0]
    if all(other is first for other in found):
        return first
    if all(isinstance(value, np.ndarray) for value in found):
        # Nothing of any shape is nothing: borders of no pixels.
        same = all(np.array_equal(first, value) for value in found) or not any(
            value.size for value in found
        )
        return first if same else Differing(tuple(found))
    if all(type(value) is tuple and len(value) == len(first) for value in found):
        return tuple(merged(parts) for parts in zip(*found, strict=True))
    if all(isinstance(value, int | np.integer) for value in found):
        return _number(np.array(found, np.int64))
    if any(isinstance(value, np.ndarray) for value in found) or any(
        value != first for value in found
    ):
        raise DependsOnSizeError(f"an operation has {first} or {found[-1]}")
    return first


def _values(sides: Sequence[Side]) -> np.ndarray:
    """Returns the numbers in each trace, (numbers, traces)."""
    count = max((len(side) for side in sides if isinstance(side, Varying)), default=1)
    rows = [side if isinstance(side, Varying) else (side,) * count for side in sides]
    return np.array(rows, np.int64).reshape(len(rows), count)


def _number(values: np.ndarray) -> Side:
    whole = Varying(int(value) for value in values)
    return whole[0] if len(set(whole)) == 1 else whole
