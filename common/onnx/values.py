"""What a tensor of a network is while its ONNX graph grows."""

from typing import NamedTuple

from common.onnx.sizes import Side

NCHW = (0, 3, 1, 2)
"""Axes of NHWC in the order in which ONNX stores images."""


class Codes(NamedTuple):
    """Scale and zero point of a tensor of uint8 codes: y = (code - zero_point) scale.

    Attributes:
      scale: above 0.
      zero_point: from 0 to 255.
      highest: the highest code that occurs.
    """

    scale: float
    zero_point: int
    highest: int


class Tensor(NamedTuple):
    """A tensor that the graph holds.

    Attributes:
      name: in the graph.
      order: the network's axis that each axis in the graph is.
      shape: in the network, with `BATCH` images.
      codes: None for floats.
      has_halves: whether many values lie halfway between codes, as means of two do.
    """

    name: str
    order: tuple[int, ...]
    shape: tuple[Side, ...]
    codes: Codes | None = None
    has_halves: bool = False

    def place(self, axis: int) -> int:
        """Returns where the graph has an axis of the network."""
        return self.order.index(axis)

    @property
    def stored(self) -> tuple[Side, ...]:
        """The shape in the graph."""
        return tuple(self.shape[axis] for axis in self.order)


class Summed(NamedTuple):
    """A sum over axes that is not in the graph yet; divided by `count` it is a mean.

    Attributes:
      x: the floats.
      axes: of the network.
      count: summed values of each result.
      shape: of the result.
      keeps_axes: whether the result has sides of 1 where it was summed.
    """

    x: Tensor
    axes: tuple[int, ...]
    count: Side
    shape: tuple[Side, ...]
    keeps_axes: bool = False
