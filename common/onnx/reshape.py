"""Reshaped tensors whose axes stay in the order in which the graph stores them.

A reshape splits and joins axes: it maps groups of neighbouring axes to groups of the
same size. The groups stay where they are stored, so a tensor that is stored channels
first still is, and is transposed only for axes that are joined and are not neighbours.
"""

from collections.abc import Sequence
from typing import NamedTuple

from common.onnx.sizes import Side, Varying, is_less, product
from common.onnx.values import Tensor
from common.onnx.writer import Writer


class _Group(NamedTuple):
    """Axes before and after a reshape, of the same size."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def reshaped(writer: Writer, x: Tensor, shape: tuple[Side, ...]) -> Tensor | None:
    """Returns a tensor with another shape; None if that mixes images of a batch.

    Args:
      writer: of the graph.
      x: the tensor; its first axis is the batch.
      shape: in the network.
    """
    groups = _groups(x.shape, shape)
    if groups is None or groups[0] != _Group((0,), (0,)):
        return None
    last = len(x.order)
    # A group of axes that are no neighbours goes where its first one is.
    groups.sort(key=lambda group: x.place(group.before[0]) if group.before else last)
    x = writer.ordered(x, tuple(axis for group in groups for axis in group.before))
    order = tuple(axis for group in groups for axis in group.after)
    stored = [shape[axis] for axis in order]
    return Tensor(_stored_as(writer, x, stored), order, shape, x.codes, x.has_halves)


def _groups(before: Sequence[Side], after: Sequence[Side]) -> list[_Group] | None:
    """Returns the smallest groups of axes of the same size; None if there are none."""
    groups: list[_Group] = []
    i = j = 0
    while i < len(before) and j < len(after):
        start, other = i, j
        i, j = i + 1, j + 1
        while (left := product(before[start:i])) != (right := product(after[other:j])):
            if is_less(left, right):
                i += 1
            else:
                j += 1
            if i > len(before) or j > len(after):
                return None
        groups.append(_Group(tuple(range(start, i)), tuple(range(other, j))))
    # What is left has sides of 1.
    if product(before[i:]) != 1 or product(after[j:]) != 1:
        return None
    rest = _Group(tuple(range(i, len(before))), tuple(range(j, len(after))))
    return [*groups, rest] if rest != _Group((), ()) else groups


def _stored_as(writer: Writer, x: Tensor, sides: Sequence[Side]) -> str:
    """Returns the name of a tensor that is stored with these sides."""
    before = x.stored
    if list(before) == list(sides):
        return x.name
    # 0 takes the side that is there, and -1 what is left.
    known: list[Side] = [
        0 if index < len(before) and side == before[index] else side
        for index, side in enumerate(sides)
    ]
    free = [index for index, side in enumerate(known) if isinstance(side, Varying)]
    if len(free) > 1 and _without_ones(before) == _without_ones(sides):
        return _with_ones(writer, x, sides)
    if free:
        known[free[-1]] = -1
    vector = writer.vector(known, "shape")
    return writer.graph.node("Reshape", [x.name, vector], f"{x.name}/reshaped")


def _without_ones(sides: Sequence[Side]) -> list[Side]:
    return [side for side in sides if side != 1]


def _with_ones(writer: Writer, x: Tensor, sides: Sequence[Side]) -> str:
    """Returns the name of a tensor whose sides of 1 are others."""
    name = x.name
    for kind, shape in (("Squeeze", x.stored), ("Unsqueeze", sides)):
        ones = [index for index, side in enumerate(shape) if side == 1]
        if ones:
            axes = writer.vector(ones, "axes")
            name = writer.graph.node(kind, [name, axes], f"{x.name}/reshaped")
    return name
